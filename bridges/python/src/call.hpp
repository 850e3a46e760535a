#pragma once

#include <array>
#include <optional>

#include "errors.hpp"

namespace dlbridge::python {

/// The arguments of a METH_FASTCALL | METH_KEYWORDS function, by name; borrowed, None by default.
template <std::size_t Count>
class Arguments {
 public:
  Arguments(const char* function, const std::array<const char*, Count>& names)
      : function_(function), names_(names) {
    values_.fill(Py_None);
  }

  /// The first `positional` names may be given by position. Throws PythonError with a TypeError.
  void parse(std::size_t positional, PyObject* const* arguments, Py_ssize_t count,
             PyObject* keywords) {
    if (static_cast<std::size_t>(count) > positional) {
      raise(PyExc_TypeError, std::string(function_) + "() takes " + std::to_string(positional) +
                                 " positional arguments but " + std::to_string(count) +
                                 " were given");
    }
    for (Py_ssize_t i = 0; i < count; ++i) {
      values_[static_cast<std::size_t>(i)] = arguments[i];
    }
    const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < named; ++i) {
      values_[index_of(PyTuple_GET_ITEM(keywords, i))] = arguments[count + i];
    }
  }

  [[nodiscard]] PyObject* get(std::size_t index) const { return values_[index]; }

 private:
  std::size_t index_of(PyObject* keyword) const {
    for (std::size_t i = 0; i < Count; ++i) {
      if (PyUnicode_CompareWithASCIIString(keyword, names_[i]) == 0) {
        return i;
      }
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function_,
                 keyword);
    throw PythonError();
  }

  const char* function_;
  std::array<const char*, Count> names_;
  std::array<PyObject*, Count> values_;
};

/// What a caller asks for, read from a function's arguments.
struct Call {
  Policy policy;
  Request request;
  std::optional<Stream> stream{};  // that the source's memory is ordered on; otherwise as found out
};

/// The call of a function that has no argument `policy`, and is not to be told of one.
[[nodiscard]] inline Call without_policy(Call call) {
  call.request.takes_policy = false;
  return call;
}

/// The arguments that the functions share; null or None where there is none.
struct Asked {
  PyObject* policy = nullptr;
  PyObject* dtype = nullptr;
  PyObject* copy = nullptr;
  PyObject* device = nullptr;
  PyObject* stream = nullptr;
  PyObject* order = nullptr;
  PyObject* writable = nullptr;
};

/// Reads them. Throws PythonError with a ValueError or TypeError for one that is none.
[[nodiscard]] Call read_call(const Asked& asked);

/// The call without any of them: under the policy of the open blocks. Throws PythonError.
[[nodiscard]] Call call_of_block();

/// The policy of an argument: None is the default, a name one of the presets, or a Policy.
[[nodiscard]] Policy policy_argument(PyObject* policy);

/// The rule of `copy=`; None leaves `otherwise`.
[[nodiscard]] CopyRule copy_rule(PyObject* copy, CopyRule otherwise);

/// A DLPack pair of a device type and an id, whether or not DLPack has such a type.
[[nodiscard]] Device device_pair(PyObject* pair);

/// A device: "cuda:0", a DLPack pair, or what prints as a device (torch.device).
[[nodiscard]] Device device_argument(PyObject* device);

/// A type: a name, numpy.dtype or what it takes, torch.dtype, dlbridge's own.
[[nodiscard]] DType dtype_argument(PyObject* dtype);

/// Whether `max_version` asks for the versioned capsule: a pair of ints with a major of 1 or more.
[[nodiscard]] bool wants_versioned(PyObject* max_version);

/// dlbridge._core.policy_fields(): the fields of a Policy and their values, default first.
[[nodiscard]] Ref policy_fields();

}  // namespace dlbridge::python
