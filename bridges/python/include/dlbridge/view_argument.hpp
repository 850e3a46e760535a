#pragma once

#include <Python.h>

#include <optional>
#include <type_traits>
#include <utility>

#include "dlbridge/python.hpp"
#include "dlbridge/tensor_view.hpp"

namespace dlbridge::detail {

/// What both casters hold for a parameter of type TensorView<T, Rank>: the tensor, and the look.
template <typename T, std::size_t Rank>
class ViewArgument {
 public:
  /// False without an error where the object is no tensor, or one of another type or rank: another
  /// overload may fit. False with Python's error set where it was refused.
  bool load(PyObject* object) noexcept {
    // What is written to a copy would be lost: there the view itself refuses.
    tensor_ = from_python(object, /*on_host=*/true, /*aligned=*/std::is_const_v<T>);
    if (!tensor_) {
      if (PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
        PyErr_Clear();
      }
      return false;
    }
    if (tensor_.dtype() != dtype_of<T>() || static_cast<std::size_t>(tensor_.ndim()) != Rank) {
      return false;
    }
    try {
      view_.emplace(tensor_);
    } catch (const ConversionRefused& refused) {
      python_interface()->set_refused(refused);
      return false;
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_BufferError, error.what());
      return false;
    }
    return true;
  }

  [[nodiscard]] TensorView<T, Rank>& view() noexcept { return *view_; }

 private:
  ManagedTensor tensor_;
  std::optional<TensorView<T, Rank>> view_;
};

}  // namespace dlbridge::detail
