#include "types/managed_tensor_buffer.hpp"

#include <new>

#include "types/buffer_letters.hpp"

namespace dlbridge::python {
namespace {

bool is_fortran_contiguous(const DLTensor& tensor) {
  std::int64_t expected = 1;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) {
      return element_count(tensor) == 0;
    }
    expected *= tensor.shape[i];
  }
  return true;
}

// Which of the layouts that `flags` asks for the tensor does not have, or null.
const char* missing_layout(const DLTensor& tensor, int flags) {
  const auto asks = [flags](int bits) { return (flags & bits) == bits; };
  if (asks(PyBUF_STRIDES) && !asks(PyBUF_C_CONTIGUOUS) && !asks(PyBUF_F_CONTIGUOUS) &&
      !asks(PyBUF_ANY_CONTIGUOUS)) {
    return nullptr;  // any, as a memoryview asks for
  }
  const bool c_order = is_c_contiguous(tensor);
  const bool fortran = is_fortran_contiguous(tensor);
  if (asks(PyBUF_C_CONTIGUOUS) && !c_order) {
    return "C-contiguous";
  }
  if (asks(PyBUF_F_CONTIGUOUS) && !fortran) {
    return "Fortran-contiguous";
  }
  if (asks(PyBUF_ANY_CONTIGUOUS) && !c_order && !fortran) {
    return "contiguous";
  }
  if (!asks(PyBUF_STRIDES) && !c_order) {
    return "C-contiguous, as a buffer without strides has to be";
  }
  return nullptr;
}

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  view->obj = nullptr;
  const bool done = succeeds([&] {
    const ManagedTensor& managed = managed_of(self);
    const DLTensor& tensor = managed.tensor();
    const DType dtype = managed.dtype();
    const char* format = kBufferFormats[dtype];
    if (!managed.device().host_accessible()) {
      refuse_export("on " + to_string(managed.device()) + " as a buffer", "buffers are host memory",
                    "dlbridge.to_numpy(x)");
    }
    if (!dtype.whole_bytes() || (format == nullptr && (flags & PyBUF_FORMAT) != 0)) {
      refuse_export("of dtype " + to_string(dtype) + " as a buffer",
                    "the buffer protocol has no letter for it", "dlbridge.to_numpy(x)");
    }
    if ((flags & PyBUF_WRITABLE) != 0 && managed.readonly()) {
      refuse_export("that is read-only as a writable buffer", "nobody may write to it", "");
    }
    if (const char* layout = missing_layout(tensor, flags)) {
      refuse_export("as a buffer", std::string("it is not ") + layout,
                    "dlbridge.from_dlpack(x, copy=True)");
    }
    const std::int64_t itemsize = dtype.itemsize();
    Py_ssize_t* strides = nullptr;
    // Both have to be null where there are no dimensions.
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES && tensor.ndim != 0) {
      strides = static_cast<Py_ssize_t*>(
          PyMem_Malloc(sizeof(Py_ssize_t) * static_cast<std::size_t>(tensor.ndim)));
      if (strides == nullptr) {
        throw std::bad_alloc();
      }
      for (std::int32_t i = 0; i < tensor.ndim; ++i) {
        strides[i] = stride_bytes(tensor, i);
      }
    }
    view->buf = tensor.data;
    view->obj = Py_NewRef(self);
    view->len = element_count(tensor) * itemsize;
    view->itemsize = itemsize;
    view->readonly = managed.readonly() ? 1 : 0;
    view->ndim = tensor.ndim;
    view->format = (flags & PyBUF_FORMAT) != 0 ? const_cast<char*>(format) : nullptr;
    const bool shaped = (flags & PyBUF_ND) != 0 && tensor.ndim != 0;
    view->shape = shaped ? reinterpret_cast<Py_ssize_t*>(tensor.shape) : nullptr;
    view->strides = strides;
    view->suboffsets = nullptr;
    view->internal = strides;
  });
  return done ? 0 : -1;
}

void release_buffer(PyObject* /*self*/, Py_buffer* view) {
  PyMem_Free(view->internal);
}

}  // namespace

void refuse_export(const std::string& what, const std::string& why, const std::string& fix) {
  throw ConversionRefused("cannot export a dlbridge.ManagedTensor " + what + " (" + why + ")" +
                              (fix.empty() ? "" : "; use " + fix),
                          {what + ": " + why}, fix);
}

PyBufferProcs managed_tensor_buffer = {get_buffer, release_buffer};

}  // namespace dlbridge::python
