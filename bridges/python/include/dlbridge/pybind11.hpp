#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <optional>
#include <tuple>
#include <utility>

#include "dlbridge/python.hpp"
#include "dlbridge/python_error.hpp"
#include "dlbridge/view_argument.hpp"

namespace dlbridge {

/// Has pybind11 translate ConversionRefused, thrown in the body of a function of this module, to
/// dlbridge.ConversionRefused, and PythonError to the error that is set. The casters do so when the
/// first argument arrives; a module calls it when it is imported if functions throw that take no
/// tensor. Needs the GIL.
inline void install_pybind11_translator() {
  static const bool kInstalled = [] {
    pybind11::register_local_exception_translator(
        [](std::exception_ptr thrown) { detail::translate_refusal(thrown); });
    return true;
  }();
  (void)kInstalled;
}

namespace detail {

template <typename Function, Function kFunction>
struct RaisingInPython;
template <typename Result, typename... Argument, Result (*kFunction)(Argument...)>
struct RaisingInPython<Result (*)(Argument...), kFunction> {
  static Result call(Argument... arguments) {
    try {
      return kFunction(std::forward<Argument>(arguments)...);
    } catch (const ConversionRefused&) {
      const pybind11::gil_scoped_acquire gil;
      set_python_error();
      throw pybind11::error_already_set();
    } catch (const PythonError&) {
      const pybind11::gil_scoped_acquire gil;
      throw pybind11::error_already_set();
    }
  }
};

}  // namespace detail

/// The function, for one who calls it on behalf of Python by a module of pybind11's that is not
/// this one: torch's operators. What it refuses arrives as dlbridge.ConversionRefused. Called with
/// or without the GIL: `m.impl("halved.out", dlbridge::raising_in_python<&halved_out>)`.
template <auto kFunction>
inline constexpr auto raising_in_python =
    &detail::RaisingInPython<decltype(kFunction), kFunction>::call;

}  // namespace dlbridge

namespace pybind11::detail {

/// What both kinds of arguments have in common: a Taken, or perhaps one.
template <typename Taken, typename Held = Taken>
class dlbridge_argument {
 public:
  static constexpr bool is_view = !std::is_base_of_v<dlbridge::ManagedTensor, Taken>;
  template <typename Asked>
  using cast_op_type = std::conditional_t<is_view, Held&, movable_cast_op_type<Asked>>;

  bool load(handle source, bool convert) {
    dlbridge::install_pybind11_translator();
    if (argument_.load(source.ptr(), convert)) {
      return true;
    }
    if (PyErr_Occurred() != nullptr) {
      throw error_already_set();
    }
    return false;
  }

  operator Held&() { return argument_.template held<Held>(); }  // NOLINT(google-explicit-*)
  operator Held&&() && {                                        // NOLINT(google-explicit-*)
    return std::move(argument_.template held<Held>());
  }

 private:
  dlbridge::detail::Argument<Taken> argument_;
};

template <dlbridge::detail::IsTaken Taken>
struct type_caster<Taken> : dlbridge_argument<Taken> {
  static constexpr auto name = const_name(dlbridge::detail::kSignature<Taken>.letters);

  static handle cast(Taken&& tensor, return_value_policy, handle) requires(!type_caster::is_view) {
    return dlbridge::detail::given_or_throw<error_already_set>(
        dlbridge::to_python(std::move(tensor)));
  }
};

/// Of pybind11/stl.h, whose containers end the caster of an element before the call.
template <typename Type, typename Value>
struct list_caster;
template <typename Type, typename Key, typename Value>
struct map_caster;
template <typename Type, typename Value, bool kResizable, size_t kSize>
struct array_caster;
template <typename Type, typename Value>
struct optional_caster;
template <typename Variant>
struct variant_caster;

/// Tuples keep the casters of their elements, but are elements themselves.
template <typename T>
inline constexpr bool dlbridge_looks = requires {
  requires make_caster<T>::is_view;
};
template <typename... Elements>
inline constexpr bool dlbridge_looks<std::tuple<Elements...>> = (dlbridge_looks<Elements> || ...);
template <typename First, typename Second>
inline constexpr bool dlbridge_looks<std::pair<First, Second>> =
    dlbridge_looks<First> || dlbridge_looks<Second>;
template <typename T>
concept dlbridge_view = dlbridge_looks<T>;

template <typename Element>
struct dlbridge_not_in_containers {
  static_assert(!dlbridge_view<Element>,
                "a dlbridge::TensorView in a container would outlive its argument: take "
                "dlbridge::ManagedTensor there, and make the view in the function");
};
template <typename Type, dlbridge_view Value>
struct list_caster<Type, Value> : dlbridge_not_in_containers<Value> {};
template <typename Type, typename Key, dlbridge_view Value>
struct map_caster<Type, Key, Value> : dlbridge_not_in_containers<Value> {};
template <typename Type, dlbridge_view Value, bool kResizable, size_t kSize>
struct array_caster<Type, Value, kResizable, kSize> : dlbridge_not_in_containers<Value> {};
template <typename Type, dlbridge_view Value>
struct optional_caster<Type, Value> : dlbridge_not_in_containers<Value> {};
template <template <typename...> class Variant, typename... Elements>
requires(dlbridge_view<Elements> || ...) struct variant_caster<Variant<Elements...>>
    : dlbridge_not_in_containers<Elements>... {
};

/// A result in the library that its type names.
template <dlbridge::detail::IsResult Result>
struct type_caster<Result> {
  static constexpr auto name = const_name(dlbridge::detail::kSignature<Result>.letters);

  static handle cast(Result&& result, return_value_policy, handle) {
    return dlbridge::detail::given_or_throw<error_already_set>(std::move(result).to_python());
  }
};

/// The same, or None.
template <dlbridge::detail::IsTaken Taken>
struct type_caster<std::optional<Taken>> : dlbridge_argument<Taken, std::optional<Taken>> {
  static constexpr auto name = type_caster<Taken>::name + const_name(" | None");

  bool load(handle source, bool convert) {
    return source.is_none() ||
           dlbridge_argument<Taken, std::optional<Taken>>::load(source, convert);
  }
  static handle cast(std::optional<Taken>&& tensor, return_value_policy policy,
                     handle parent) requires(!type_caster::is_view) {
    return tensor ? type_caster<Taken>::cast(std::move(*tensor), policy, parent) : none().release();
  }
};

}  // namespace pybind11::detail
