// Writing a batch: many arrays into the rows of one.

#include "gather.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "dlbridge/copy.hpp"

namespace dlbridge::python {
namespace {

// What a copy borrows of an array: Source itself has room for more than is needed here.
struct Layout {
  std::array<std::int64_t, kMaxDimensions> shape;
  std::array<std::int64_t, kMaxDimensions> strides;  // in bytes
  std::byte* data;
  int ndim;
  DType dtype;
  bool swapped;
};

Layout layout_of(PyObject* object) {
  if (!NumPy::is_array(object)) {
    raise(PyExc_TypeError,
          std::string("gather() takes NumPy arrays, not ") + Py_TYPE(object)->tp_name);
  }
  Source source;
  NumPy::describe(object, source);
  const DLTensor& tensor = source.tensor;
  Layout layout;
  layout.ndim = tensor.ndim;
  layout.dtype = DType(tensor.dtype);
  layout.swapped = source.traits.conditions.has(Condition::kSwappedBytes);
  layout.data = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  const std::int64_t item = (layout.dtype.bits * layout.dtype.lanes + 7) / 8;
  std::int64_t packed = item;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    layout.shape[at] = tensor.shape[i];
    layout.strides[at] = source.byte_strides != nullptr ? source.byte_strides[i]
                         : tensor.strides != nullptr    ? tensor.strides[i] * item
                                                        : packed;
    packed *= tensor.shape[i];
  }
  return layout;
}

bool fits(const Layout& row, const Layout& target) {
  return row.ndim + 1 == target.ndim && row.dtype == target.dtype && row.dtype.whole_bytes() &&
         std::equal(row.shape.begin(), row.shape.begin() + row.ndim, target.shape.begin() + 1);
}

}  // namespace

PyObject* gather(PyObject* /*module*/, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    if (count != 2) {
      raise(PyExc_TypeError, "gather() takes a target and a list of arrays");
    }
    const Layout target = layout_of(arguments[0]);
    // A tuple of our own, so that nobody takes an array out while the GIL is away.
    const Ref rows = checked(PySequence_Tuple(arguments[1]));
    const Py_ssize_t length = PyTuple_GET_SIZE(rows.get());
    if (target.ndim == 0 || target.shape[0] != length) {
      raise(PyExc_ValueError, "gather() needs an array for each row of the target");
    }
    std::vector<Layout> layouts;
    std::vector<CopyJob> jobs;
    layouts.reserve(static_cast<std::size_t>(length));
    jobs.reserve(static_cast<std::size_t>(length));
    for (Py_ssize_t i = 0; i < length; ++i) {
      const Layout& row = layouts.emplace_back(layout_of(PyTuple_GET_ITEM(rows.get(), i)));
      if (!fits(row, target)) {
        raise(PyExc_ValueError, "the array at " + std::to_string(i) +
                                    " has not the shape and dtype of the target's rows");
      }
      jobs.push_back({.ndim = row.ndim,
                      .shape = row.shape.data(),
                      .source = row.data,
                      .source_strides_bytes = row.strides.data(),
                      .target = target.data + i * target.strides[0],
                      .target_strides_bytes = target.strides.data() + 1,
                      .source_dtype = row.dtype,
                      .target_dtype = target.dtype,
                      .swap_bytes = row.swapped});
    }
    PyThreadState* state = PyEval_SaveThread();
    try {
      copy_all(jobs);
    } catch (...) {
      PyEval_RestoreThread(state);
      throw;
    }
    PyEval_RestoreThread(state);
    Py_RETURN_NONE;
  });
}

}  // namespace dlbridge::python
