#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <exception>
#include <optional>
#include <utility>

#include "dlbridge/python.hpp"
#include "dlbridge/view_argument.hpp"

namespace dlbridge {

/// Has nanobind translate ConversionRefused, thrown in the body of any function, to
/// dlbridge.ConversionRefused, and PythonError to the error that is set. The casters do so when the
/// first argument arrives; a module calls it when it is imported if functions throw that take no
/// tensor. Needs the GIL.
inline void install_nanobind_translator() {
  static const bool kInstalled = [] {
    nanobind::register_exception_translator(
        [](const std::exception_ptr& thrown, void*) { detail::translate_refusal(thrown); });
    return true;
  }();
  (void)kInstalled;
}

}  // namespace dlbridge

namespace nanobind::detail {

/// What both kinds of arguments have in common: a Taken, or perhaps one. A refusal is thrown only
/// where the argument is read: the casters of containers may not throw, and ask can_cast() first.
template <typename Taken, typename Held = Taken>
class dlbridge_argument {
 public:
  using Value = Held;
  static constexpr bool IsView = !std::is_base_of_v<dlbridge::ManagedTensor, Taken>;
  template <typename Asked>
  using Cast = std::conditional_t<IsView, Value&, movable_cast_t<Asked>>;

  bool from_python(handle source, std::uint32_t flags, cleanup_list*) noexcept {
    dlbridge::install_nanobind_translator();
    const bool converting = (flags & static_cast<std::uint32_t>(cast_flags::convert)) != 0;
    if (argument_.load(source.ptr(), converting)) [[likely]] {
      return true;
    }
    if (PyErr_Occurred() == nullptr) {
      return false;
    }
    error_.emplace();
    return true;
  }
  template <typename>
  bool can_cast() const noexcept {
    static_assert(!IsView,
                  "a dlbridge::TensorView in a container would outlive its argument: take "
                  "dlbridge::ManagedTensor there, and make the view in the function");
    return !error_;
  }

  explicit operator Value&() {
    if (error_) [[unlikely]] {
      throw python_error(std::move(*error_));
    }
    return argument_.template held<Value>();
  }
  explicit operator Value&&() { return std::move(static_cast<Value&>(*this)); }

 protected:
  dlbridge::detail::Argument<Taken> argument_;

 private:
  std::optional<python_error> error_;
};

template <dlbridge::detail::IsTaken Taken>
struct type_caster<Taken> : dlbridge_argument<Taken> {
  static constexpr auto Name = const_name(dlbridge::detail::kSignature<Taken>.letters);

  static handle from_cpp(Taken&& tensor, rv_policy, cleanup_list*) requires(!type_caster::IsView) {
    return dlbridge::detail::given_or_throw<python_error>(dlbridge::to_python(std::move(tensor)));
  }
};

/// A result in the library that its type names.
template <dlbridge::detail::IsResult Result>
struct type_caster<Result> {
  static constexpr auto Name = const_name(dlbridge::detail::kSignature<Result>.letters);

  static handle from_cpp(Result&& result, rv_policy, cleanup_list*) {
    return dlbridge::detail::given_or_throw<python_error>(std::move(result).to_python());
  }
};

/// The same, or None.
template <dlbridge::detail::IsTaken Taken>
struct type_caster<std::optional<Taken>> : dlbridge_argument<Taken, std::optional<Taken>> {
  static constexpr auto Name = type_caster<Taken>::Name + const_name(" | None");

  bool from_python(handle source, std::uint32_t flags, cleanup_list* cleanup) noexcept {
    if (source.is_none()) {
      this->argument_.clear();  // of the element before, in a container
      return true;
    }
    return dlbridge_argument<Taken, std::optional<Taken>>::from_python(source, flags, cleanup);
  }
  static handle from_cpp(std::optional<Taken>&& tensor, rv_policy policy,
                         cleanup_list* cleanup) requires(!type_caster::IsView) {
    return tensor ? type_caster<Taken>::from_cpp(std::move(*tensor), policy, cleanup)
                  : none().release();
  }
};

}  // namespace nanobind::detail
