#include "managed_tensor_type.hpp"

#include <structmember.h>

#include <algorithm>
#include <array>
#include <new>

#include "arguments.hpp"
#include "capsule.hpp"
#include "convert.hpp"
#include "devices.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/transfer.hpp"
#include "ledger.hpp"

namespace dlbridge::python {
namespace {

constexpr Library kManagedLibrary{.name = "dlbridge", .object = "dlbridge.ManagedTensor"};

PackageAttribute device_type("dlbridge._types", "Device");
PackageAttribute dtype_type("dlbridge._types", "DType");

// Memory of objects that died, for the next ones: the base of an array is made and dropped with
// every crossing. None under AddressSanitizer, which could not see a use after free in it.
class Spares {
 public:
  void* take() noexcept { return count_ == 0 ? nullptr : memory_[--count_]; }
  bool keep([[maybe_unused]] void* memory) noexcept {
    if constexpr (kRoom == 0) {
      return false;
    } else {
      if (count_ == memory_.size()) {
        return false;
      }
      memory_[count_++] = memory;
      return true;
    }
  }

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kRoom = 0;
#else
  static constexpr std::size_t kRoom = 64;
#endif
  std::size_t count_ = 0;
  std::array<void*, std::max<std::size_t>(kRoom, 1)> memory_{};
};
Spares spares;

void deallocate(PyObject* self) {
  auto* object = reinterpret_cast<ManagedTensorObject*>(self);
  if (object->weak_references != nullptr) {
    PyObject_ClearWeakRefs(self);
  }
  {
    const HoldsGil gil;
    object->managed.~ManagedTensor();
  }
  if (!spares.keep(self)) {
    PyObject_Free(self);
  }
}

Ref tuple_of(std::span<const std::int64_t> numbers) {
  Ref tuple = checked(PyTuple_New(static_cast<Py_ssize_t>(numbers.size())));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i),
                     checked(PyLong_FromLongLong(numbers[i])).release());
  }
  return tuple;
}

PyObject* get_shape(PyObject* self, void* /*closure*/) {
  return guarded([&] { return tuple_of(managed_of(self).shape()).release(); });
}

PyObject* get_strides(PyObject* self, void* /*closure*/) {
  return guarded([&] { return tuple_of(managed_of(self).strides()).release(); });
}

PyObject* get_dtype(PyObject* self, void* /*closure*/) {
  return guarded([&] { return dtype_object(managed_of(self).dtype()).release(); });
}

PyObject* get_device(PyObject* self, void* /*closure*/) {
  return guarded([&] { return device_object(managed_of(self).device()).release(); });
}

PyObject* get_readonly(PyObject* self, void* /*closure*/) {
  return PyBool_FromLong(managed_of(self).readonly() ? 1 : 0);
}

PyObject* get_data_ptr(PyObject* self, void* /*closure*/) {
  return PyLong_FromVoidPtr(managed_of(self).data());
}

PyObject* get_ndim(PyObject* self, void* /*closure*/) {
  return PyLong_FromLong(managed_of(self).ndim());
}

PyObject* get_nbytes(PyObject* self, void* /*closure*/) {
  return PyLong_FromLongLong(byte_count(managed_of(self).tensor()));
}

PyObject* represent(PyObject* self) {
  return guarded([&] {
    const ManagedTensor& tensor = managed_of(self);
    const Ref shape = tuple_of(tensor.shape());
    return PyUnicode_FromFormat(
        "<dlbridge.ManagedTensor %s %S on %s%s>", to_string(tensor.dtype()).c_str(), shape.get(),
        to_string(tensor.device()).c_str(), tensor.readonly() ? ", read-only" : "");
  });
}

[[noreturn]] void refuse(const std::string& what, const std::string& why, const std::string& fix) {
  throw ConversionRefused("cannot export a dlbridge.ManagedTensor " + what + " (" + why + ")" +
                              (fix.empty() ? "" : "; use " + fix),
                          {what + ": " + why}, fix);
}

// The rules of the `stream` keyword: DLPack's Python page, "stream". The stream that the memory is
// to be ordered on, or nothing where no order is wanted.
std::optional<Stream> export_stream(PyObject* stream, Device device) {
  const bool cuda = device.type == kDLCUDA || device.type == kDLCUDAManaged;
  const bool rocm = device.type == kDLROCM;
  const bool ours = !device.host_accessible() && device_runtime(device.type) != nullptr;
  if (stream == Py_None) {
    return cuda || rocm || ours ? std::optional<Stream>(Stream{}) : std::nullopt;
  }
  if (!PyLong_Check(stream)) {
    raise(PyExc_TypeError,
          std::string("stream must be None or an int, not ") + Py_TYPE(stream)->tp_name);
  }
  const long long number = PyLong_AsLongLong(stream);
  if (number == -1 && PyErr_Occurred() != nullptr) {
    throw PythonError();
  }
  if (!cuda && !rocm && !ours) {
    refuse("on " + to_string(device) + " with stream=" + std::to_string(number),
           "memory of the host has no streams", "stream=None");
  }
  if (number < -1 || (cuda && number == 0) || (rocm && (number == 1 || number == 2))) {
    refuse("with stream=" + std::to_string(number), "DLPack gives that number no meaning",
           "stream=-1 for no synchronisation, or the handle of a stream");
  }
  if (number == -1) {
    return std::nullopt;
  }
  // 1 is the default stream by another name (cudaStreamLegacy).
  return number == 1 && !rocm ? Stream{} : Stream{reinterpret_cast<void*>(number)};
}

ManagedTensor copied(const ManagedTensor& tensor, Device to) {
  Source source;
  describe(tensor, kManagedLibrary, source);
  source.stream = stream_of_managed(tensor.device());
  // A copy may be written to, whatever it is a copy of.
  source.traits.conditions.remove(Condition::kReadOnly);
  const Policy snapshot = Policy::snapshot();
  const Request request{.dtype = {}, .device = to};
  const Capabilities& target = managed_tensor_capabilities();
  const Plan decided = plan(source, target, snapshot, request);
  if (decided.is_refused()) {
    raise_refused(decided, source, target, snapshot, request);
  }
  if (tensor.device().host_accessible() && to.host_accessible()) {
    return carry_out(decided, source);
  }
  const WithoutGil without_gil;
  return carry_out(decided, source);
}

// A view, or a copy, ordered for whoever works on the stream.
ManagedTensor exported(const ManagedTensor& tensor, CopyRule copy, Device to,
                       std::optional<Stream> stream) {
  ManagedTensor leaving =
      copy == CopyRule::kAlways || to != tensor.device() ? copied(tensor, to) : tensor.share();
  if (stream && !to.host_accessible()) {
    order_streams(to, stream_of_managed(to), *stream);
    leaving = until_done_on(std::move(leaving), *stream);
  }
  return leaving;
}

PyObject* export_dlpack(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                        PyObject* names) {
  return guarded([&]() -> PyObject* {
    Arguments<4> parsed("__dlpack__", {"stream", "max_version", "dl_device", "copy"});
    parsed.parse(0, arguments, count, names);
    const ManagedTensor& tensor = managed_of(self);
    const bool versioned = wants_versioned(parsed.get(1));
    const CopyRule copy = copy_rule(parsed.get(3), CopyRule::kWhenNeeded);
    const Device device = tensor.device();
    const auto stream = export_stream(parsed.get(0), device);
    if (!versioned && (tensor.flags() & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0) {
      refuse("whose elements are padded to whole bytes in a legacy capsule",
             "the legacy struct cannot say so", "max_version=(1, 3)");
    }
    Device to = device;
    if (parsed.get(2) != Py_None) {
      const Device wanted = device_pair(parsed.get(2));
      const bool here = wanted == device || (wanted.type == kDLCPU && device.host_accessible());
      const bool reached = wanted.type == kDLCPU && device_runtime(device.type) != nullptr;
      if (!here && (!reached || copy == CopyRule::kNever)) {
        refuse("on " + to_string(device) + " to " + to_string(wanted),
               reached ? "that is a copy, and copy=False forbids it"
                       : "a ManagedTensor stays where it is",
               "dlbridge.from_dlpack(x, device=...)");
      }
      to = here ? device : wanted;
    }
    return make_capsule(exported(tensor, copy, to, stream), versioned).release();
  });
}

PyObject* export_device(PyObject* self, PyObject* /*unused*/) {
  const Device device = managed_of(self).device();
  return Py_BuildValue("(ii)", device.type, device.id);
}

PyObject* export_array(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                       PyObject* names) {
  return guarded([&]() -> PyObject* {
    const Watch watch;
    Arguments<2> parsed("__array__", {"dtype", "copy"});
    parsed.parse(2, arguments, count, names);
    return to_numpy_object(self, nullptr, parsed.get(0), parsed.get(1)).release();
  });
}

// The buffer protocol's letter, or null for what it has no letter for.
const char* buffer_format(DType dtype) {
  struct Row {
    DType dtype;
    const char* format;
  };
  static constexpr Row kRows[] = {
      {{kDLBool, 8}, "?"},      {{kDLInt, 8}, "b"},       {{kDLUInt, 8}, "B"},
      {{kDLInt, 16}, "h"},      {{kDLUInt, 16}, "H"},     {{kDLInt, 32}, "i"},
      {{kDLUInt, 32}, "I"},     {{kDLInt, 64}, "l"},      {{kDLUInt, 64}, "L"},
      {{kDLFloat, 16}, "e"},    {{kDLFloat, 32}, "f"},    {{kDLFloat, 64}, "d"},
      {{kDLComplex, 64}, "Zf"}, {{kDLComplex, 128}, "Zd"}};
  static constexpr auto kFormats = [] {
    std::array<const char*, kNamedDTypes.size()> formats{};
    for (const auto& row : kRows) {
      formats[static_cast<std::size_t>(index_of(row.dtype))] = row.format;
    }
    return formats;
  }();
  const int row = index_of(dtype);
  return row < 0 ? nullptr : kFormats[static_cast<std::size_t>(row)];
}

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
  PyObject* done = guarded([&]() -> PyObject* {
    const ManagedTensor& managed = managed_of(self);
    const DLTensor& tensor = managed.tensor();
    const DType dtype = managed.dtype();
    const char* format = buffer_format(dtype);
    if (!managed.device().host_accessible()) {
      refuse("on " + to_string(managed.device()) + " as a buffer", "buffers are host memory",
             "dlbridge.to_numpy(x)");
    }
    if (!dtype.whole_bytes() || (format == nullptr && (flags & PyBUF_FORMAT) != 0)) {
      refuse("of dtype " + to_string(dtype) + " as a buffer",
             "the buffer protocol has no letter for it", "dlbridge.to_numpy(x)");
    }
    if ((flags & PyBUF_WRITABLE) != 0 && managed.readonly()) {
      refuse("that is read-only as a writable buffer", "nobody may write to it", "");
    }
    if (const char* layout = missing_layout(tensor, flags)) {
      refuse("as a buffer", std::string("it is not ") + layout,
             "dlbridge.from_dlpack(x, copy=True)");
    }
    const std::int64_t itemsize = dtype.itemsize();
    Py_ssize_t* strides = nullptr;
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES) {
      strides = static_cast<Py_ssize_t*>(
          PyMem_Malloc(sizeof(Py_ssize_t) * static_cast<std::size_t>(tensor.ndim + 1)));
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
    view->shape = (flags & PyBUF_ND) != 0 ? reinterpret_cast<Py_ssize_t*>(tensor.shape) : nullptr;
    view->strides = strides;
    view->suboffsets = nullptr;
    view->internal = strides;
    return Py_None;
  });
  return done == nullptr ? -1 : 0;
}

void release_buffer(PyObject* /*self*/, Py_buffer* view) {
  PyMem_Free(view->internal);
}

PyGetSetDef attributes[] = {
    {"shape", get_shape, nullptr, "The size of each dimension.", nullptr},
    {"strides", get_strides, nullptr, "The step along each dimension, in elements.", nullptr},
    {"dtype", get_dtype, nullptr, "The type: code, bits, lanes, and a name as str.", nullptr},
    {"device", get_device, nullptr, "The device: a pair of its type and id.", nullptr},
    {"readonly", get_readonly, nullptr, "Whether nobody may write to the memory.", nullptr},
    {"data_ptr", get_data_ptr, nullptr, "The address of the first element.", nullptr},
    {"ndim", get_ndim, nullptr, "The number of dimensions.", nullptr},
    {"nbytes", get_nbytes, nullptr, "The bytes of the elements, packed.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyMethodDef methods[] = {
    {"__dlpack__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(export_dlpack)),
     METH_FASTCALL | METH_KEYWORDS,
     "__dlpack__(*, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
     "A capsule over the same memory, or over a copy; as often as wanted."},
    {"__dlpack_device__", export_device, METH_NOARGS,
     "__dlpack_device__()\n--\n\nThe pair of device type and id."},
    {"__array__", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(export_array)),
     METH_FASTCALL | METH_KEYWORDS,
     "__array__(dtype=None, *, copy=None)\n--\n\nThe tensor as to_numpy() gives it."},
    {nullptr, nullptr, 0, nullptr}};

PyBufferProcs buffer_procedures = {get_buffer, release_buffer};

PyTypeObject make_type() {
  PyTypeObject type{};
  Py_SET_REFCNT(&type, 1);
  type.tp_name = "dlbridge.ManagedTensor";
  type.tp_doc =
      "A tensor of no library: memory, shape, strides, type and device, owned through DLPack.\n\n"
      "Made by from_dlpack(); exported to any library, as often as wanted, through DLPack's\n"
      "capsules and exchange table, the buffer protocol, or to_numpy() and to_torch().";
  type.tp_basicsize = sizeof(ManagedTensorObject);
  type.tp_weaklistoffset = offsetof(ManagedTensorObject, weak_references);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  type.tp_dealloc = deallocate;
  type.tp_repr = represent;
  type.tp_getset = attributes;
  type.tp_methods = methods;
  type.tp_as_buffer = &buffer_procedures;
  return type;
}

}  // namespace

PyTypeObject managed_tensor_type = make_type();

Ref wrap(ManagedTensor tensor) {
  void* memory = spares.take();
  if (memory == nullptr) {
    memory = PyObject_Malloc(sizeof(ManagedTensorObject));
  }
  if (memory == nullptr) {
    PyErr_NoMemory();
    throw PythonError();
  }
  auto* object = static_cast<ManagedTensorObject*>(memory);
  PyObject_Init(static_cast<PyObject*>(memory), &managed_tensor_type);
  new (&object->managed) ManagedTensor(std::move(tensor));
  object->weak_references = nullptr;
  return Ref(reinterpret_cast<PyObject*>(object));
}

void add_managed_tensor_type(PyObject* module) {
  checked(PyType_Ready(&managed_tensor_type));
  const Ref table = exchange_table_capsule();
  checked(
      PyDict_SetItemString(managed_tensor_type.tp_dict, "__dlpack_c_exchange_api__", table.get()));
  PyType_Modified(&managed_tensor_type);
  checked(PyModule_AddObjectRef(module, "ManagedTensor",
                                reinterpret_cast<PyObject*>(&managed_tensor_type)));
}

Ref device_object(Device device) {
  return checked(PyObject_CallFunction(device_type.get(), "ii", device.type, device.id));
}

Ref dtype_object(DType dtype) {
  return checked(
      PyObject_CallFunction(dtype_type.get(), "iii", dtype.code, dtype.bits, dtype.lanes));
}

}  // namespace dlbridge::python
