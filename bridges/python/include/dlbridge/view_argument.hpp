#pragma once

// What the casters of nanobind and pybind11 have in common.

#include <Python.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "dlbridge/needs.hpp"
#include "dlbridge/python.hpp"
#include "dlbridge/python_error.hpp"
#include "dlbridge/results.hpp"
#include "dlbridge/tensor_view.hpp"

namespace dlbridge::detail {

/// A text that is put together when this is compiled.
class Words {
 public:
  constexpr void add(std::string_view text) {
    for (char letter : text) {
      letters_[size_++] = letter;
    }
  }
  constexpr void add(std::size_t number) {
    if (number >= 10) {
      add(number / 10);
    }
    letters_[size_++] = static_cast<char>('0' + number % 10);
  }
  template <typename T, std::size_t Rank>
  constexpr void add_view(std::string_view kind) {
    add(kind);
    add(kNamedDTypes[static_cast<std::size_t>(index_of(dtype_of<T>()))].name);
    add(", ");
    if constexpr (Rank == kDynamicRank) {
      add("any rank");
    } else {
      add(Rank);
    }
    add(std::is_const_v<T> ? "]" : ", in place]");
  }
  [[nodiscard]] constexpr std::size_t size() const { return size_; }
  [[nodiscard]] constexpr char operator[](std::size_t index) const { return letters_[index]; }

 private:
  std::array<char, 256> letters_{};
  std::size_t size_ = 0;
};

/// How a type is taken as an argument: what Python has to give, and how the signature says it.
template <typename Taken>
struct Taking;

template <>
struct Taking<ManagedTensor> {
  static constexpr Parameter kParameter{};
  static constexpr bool kOnlyLooks = false;  // needs no managed tensor where a lease is enough
  static constexpr void say(Words& words) { words.add("dlbridge.ManagedTensor"); }
  static ManagedTensor make(ManagedTensor& tensor, PyObject* /*object*/) noexcept {
    return std::move(tensor);
  }
};

template <typename T, std::size_t Rank>
struct Taking<DeviceView<T, Rank>> {
  static constexpr Parameter kParameter{
      .dtype = dtype_of<T>(),
      .ndim = Rank == kDynamicRank ? -1 : static_cast<std::int32_t>(Rank),
      .on_device = true,
      .in_place = !std::is_const_v<T>};
  static constexpr bool kOnlyLooks = false;
  static constexpr void say(Words& words) { words.add_view<T, Rank>("dlbridge.DeviceView["); }
  static DeviceView<T, Rank> make(const ManagedTensor& tensor, PyObject* /*object*/) {
    return DeviceView<T, Rank>(tensor, python_stream(tensor.device()));
  }
};

template <typename T, std::size_t Rank>
struct Taking<TensorView<T, Rank>> {
  static constexpr Parameter kParameter{
      .loadable = true,
      .dtype = dtype_of<T>(),
      .ndim = Rank == kDynamicRank ? -1 : static_cast<std::int32_t>(Rank),
      .in_place = !std::is_const_v<T>};
  static constexpr bool kOnlyLooks = Rank != kDynamicRank;
  static constexpr void say(Words& words) { words.add_view<T, Rank>("dlbridge.TensorView["); }
  template <typename Looked>
  static TensorView<T, Rank> make(const Looked& tensor, PyObject* /*object*/) {
    return TensorView<T, Rank>::trusted(tensor);
  }
};

template <typename Taken, typename... Need>
struct Taking<Needs<Taken, Need...>> {
  static constexpr Parameter kParameter = [] {
    Parameter parameter = Taking<Taken>::kParameter;
    (Need::add_to(parameter), ...);
    return parameter;
  }();
  static constexpr bool kAlone = (std::same_as<Need, Alone> || ...);
  static constexpr bool kOnlyLooks = Taking<Taken>::kOnlyLooks;
  static_assert(kParameter.ndim == Taking<Taken>::kParameter.ndim &&
                    (kParameter.dtype == Taking<Taken>::kParameter.dtype ||
                     kParameter.cast_to == Taking<Taken>::kParameter.dtype) &&
                    kParameter.loadable == Taking<Taken>::kParameter.loadable &&
                    !(kParameter.loadable && kParameter.device),
                "a need changes neither type, rank nor place of a view: a TensorView reads host "
                "memory, and a DeviceView is for that of a device");
  static constexpr void say(Words& words) {
    words.add("dlbridge.Needs[");
    Taking<Taken>::say(words);
    ((words.add(", "), words.add(Need::kName)), ...);
    words.add("]");
  }
  template <typename Looked>
  static Needs<Taken, Need...> make(Looked& tensor, PyObject* object) {
    return Needs<Taken, Need...>(Taking<Taken>::make(tensor, object));
  }
};

template <typename Taken>
struct Taking<FromPython<Taken>> : Taking<Taken> {
  template <typename Looked>
  static FromPython<Taken> make(Looked& tensor, PyObject* object) {
    return {Taking<Taken>::make(tensor, object), object};
  }
};

// Results are said, and made, in the same way.
template <>
struct Taking<Like> {
  static constexpr void say(Words& words) { words.add("dlbridge.Like"); }
};
template <LibraryName kName>
struct Taking<In<kName>> {
  static constexpr void say(Words& words) {
    words.add("dlbridge.In[");
    words.add(kName.text());
    words.add("]");
  }
};

template <typename Result>
concept IsResult = requires(Result result) {
  { std::move(result).to_python() } -> std::same_as<PyObject*>;
  &Taking<Result>::say;
};

/// A parameter of type dlbridge::ManagedTensor takes any tensor of any library; a result of that
/// type leaves as a dlbridge.ManagedTensor. What dlbridge refuses reaches the caller as it is, not
/// as "incompatible function arguments".
///
/// A parameter of type dlbridge::TensorView<T, Rank> takes a tensor of any library with that type
/// and rank, valid during the call. Of const elements it may be a copy: brought to the host if it
/// is elsewhere, say. Others are the caller's own memory, or refused.
template <typename Taken>
concept IsTaken = requires {
  Taking<Taken>::kParameter;
};

/// For a binder's translator of exceptions: throws what is no refusal, and no error of
/// Python's, on to the next.
inline void translate_refusal(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const ConversionRefused&) {
    set_python_error();
  } catch (const PythonError&) {  // whose error is set
  }
}

/// What a function of Python's gave, or the binder's exception for the error that is set.
template <typename Error>
PyObject* given_or_throw(PyObject* given) {
  if (given == nullptr) {
    throw Error();
  }
  return given;
}

/// "dlbridge.TensorView[float32, 2]", as characters that a binder can take.
template <typename Taken>
inline constexpr Words kSaid = [] {
  Words words;
  Taking<Taken>::say(words);
  return words;
}();
template <typename Taken>
inline constexpr auto kSignature = [] {
  struct {
    char letters[kSaid<Taken>.size() + 1];
  } text{};
  for (std::size_t i = 0; i < kSaid<Taken>.size(); ++i) {
    text.letters[i] = kSaid<Taken>[i];
  }
  return text;
}();

/// What a caster holds for an argument: the tensor, or a lease on its memory where that is enough,
/// and the look at it. Made and ended with the GIL.
template <IsTaken Taken>
class Argument {
 public:
  Argument() = default;
  ~Argument() { let_go(); }
  /// As pybind11's cast<ManagedTensor>() wants it. A view by that would outlive what it looks at.
  Argument(Argument&&) noexcept requires(std::derived_from<Taken, ManagedTensor>) = default;
  Argument(const Argument&) = delete;
  Argument& operator=(const Argument&) = delete;

  /// False without an error where another overload may fit; false with Python's error set where
  /// the object was refused. Without `converting` only a view of what the caller has is taken.
  bool load(PyObject* object, bool converting) noexcept {
    clear();
    if constexpr (Taking<Taken>::kOnlyLooks) {
      const PythonInterface* interface = python_interface();
      DLTensor tensor;
      if (interface != nullptr &&
          interface->look(object, Taking<Taken>::kParameter, tensor, lease_)) [[likely]] {
        interface_ = interface;
        taken_.emplace(Taking<Taken>::make(tensor, object));
        return true;
      }
    }
    Matching matching = converting ? Matching::kConverting : Matching::kLooking;
    if constexpr (requires { requires Taking<Taken>::kAlone; }) {
      matching = converting ? Matching::kAlone : matching;
    }
    tensor_ = from_python(object, Taking<Taken>::kParameter, matching);
    if (!tensor_) [[unlikely]] {
      return false;
    }
    try {
      taken_.emplace(Taking<Taken>::make(tensor_, object));
    } catch (...) {
      set_python_error();
      return false;
    }
    return true;
  }

  void clear() noexcept {
    taken_.reset();
    let_go();
  }
  /// As a Taken, or as an optional one: nothing where the object was None, and load() was not
  /// called.
  template <typename Held>
  [[nodiscard]] Held& held() noexcept {
    if constexpr (std::same_as<Held, Taken>) {
      return *taken_;
    } else {
      return taken_;
    }
  }

 private:
  void let_go() noexcept {
    if (interface_ != nullptr) {
      std::exchange(interface_, nullptr)->let_go(lease_);
    }
  }

  const PythonInterface* interface_ = nullptr;  // while there is the lease
  Lease lease_;
  ManagedTensor tensor_;  // what a view looks at otherwise
  std::optional<Taken> taken_;
};

}  // namespace dlbridge::detail
