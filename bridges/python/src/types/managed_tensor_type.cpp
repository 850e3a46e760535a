#include "types/managed_tensor_type.hpp"

#include <structmember.h>

#include <algorithm>
#include <array>
#include <new>

#include "call.hpp"
#include "crossing.hpp"
#include "dlbridge/python_lease.hpp"
#include "targets/managed_target.hpp"
#include "targets/numpy_target.hpp"
#include "types/capsule.hpp"
#include "types/managed_tensor_buffer.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute device_type("dlbridge._types", "Device");
PackageAttribute dtype_type("dlbridge._types", "DType");
PackageAttribute managed_tensor_page("dlbridge._notebook", "managed_tensor_page");
PackageAttribute reduce_managed("dlbridge.processes.pickling", "reduce_managed");

// Memory of objects that died, for the next ones: the base of an array is made and dropped with
// every crossing. None under AddressSanitizer, which could not see a use after free in it.
class Spares {
 public:
  void* take() noexcept { return count_ == 0 ? nullptr : memory_[--count_]; }
  bool keep(void* memory) noexcept {
    if (count_ == kRoom) {
      return false;
    }
    memory_[count_++] = memory;
    return true;
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
  if (object->managed) {  // otherwise it was refused, and stayed with its caller
    const GivesBack scope(object->managed.tensor());
    object->managed.~ManagedTensor();
  }
  if (!spares.keep(self)) {
    PyObject_Free(self);
  }
}

// An attribute that is computed of the tensor.
template <Ref (*kValue)(const ManagedTensor& tensor)>
PyGetSetDef attribute(const char* name, const char* says) {
  return {
      name,
      [](PyObject* self, void*) { return guarded([self] { return kValue(managed_of(self)); }); },
      nullptr, says, nullptr};
}

Ref shape_of(const ManagedTensor& tensor) {
  return integer_tuple(tensor.shape());
}
Ref strides_of(const ManagedTensor& tensor) {
  return integer_tuple(tensor.strides());
}
Ref dtype_of(const ManagedTensor& tensor) {
  const DType dtype = tensor.dtype();
  return checked(
      PyObject_CallFunction(dtype_type.get(), "iii", dtype.code, dtype.bits, dtype.lanes));
}
Ref device_of(const ManagedTensor& tensor) {
  const Device device = tensor.device();
  return checked(PyObject_CallFunction(device_type.get(), "ii", device.type, device.id));
}
Ref readonly_of(const ManagedTensor& tensor) {
  return Ref(PyBool_FromLong(tensor.readonly() ? 1 : 0));
}
Ref address_of(const ManagedTensor& tensor) {
  return checked(PyLong_FromVoidPtr(tensor.data()));
}
Ref ndim_of(const ManagedTensor& tensor) {
  return checked(PyLong_FromLong(tensor.ndim()));
}
Ref nbytes_of(const ManagedTensor& tensor) {
  return checked(PyLong_FromLongLong(byte_count(tensor.tensor())));
}

PyObject* represent(PyObject* self) {
  return guarded([&] {
    const ManagedTensor& tensor = managed_of(self);
    const Ref shape = integer_tuple(tensor.shape());
    return PyUnicode_FromFormat(
        "<dlbridge.ManagedTensor %s %S on %s%s>", to_string(tensor.dtype()).c_str(), shape.get(),
        to_string(tensor.device()).c_str(), tensor.readonly() ? ", read-only" : "");
  });
}

// The rules of the `stream` keyword: DLPack's Python page, "stream". The stream that the memory is
// to be ordered on, or nothing where no order is wanted.
std::optional<Stream> export_stream(PyObject* stream, Device device) {
  const auto numbers = stream_numbers(device.type);
  if (stream == Py_None) {
    return numbers ? std::optional<Stream>(Stream{}) : std::nullopt;
  }
  if (!PyLong_Check(stream)) {
    raise_other_type("stream must be None or an int", stream);
  }
  const long long number = integer_of(stream, "stream");
  if (!numbers) {
    refuse_export("on " + to_string(device) + " with stream=" + std::to_string(number),
                  "memory of the host has no streams", "stream=None");
  }
  if (number == -1) {
    return std::nullopt;
  }
  const auto named = numbers->stream_of(number);
  if (!named) {
    refuse_export("with stream=" + std::to_string(number), "DLPack gives that number no meaning",
                  "stream=-1 for no synchronisation, or the handle of a stream");
  }
  return named;
}

// A view, or a copy, ordered for whoever works on the stream.
ManagedTensor exported(PyObject* self, CopyRule copy, Device to, std::optional<Stream> stream) {
  const ManagedTensor& tensor = managed_of(self);
  const Call copying{.policy = Policy::snapshot(), .request = {.dtype = {}, .device = to}};
  ManagedTensor leaving;
  if (copy == CopyRule::kAlways || to != tensor.device()) {
    const Ref made = cross<false>(self, kManagedTensorWay, kToManaged, copying);
    // Not shared where it is a copy: a capsule says so of what nobody else has.
    leaving = made.get() == self ? tensor.share() : std::move(managed_of(made.get()));
  } else {
    leaving = tensor.share();
  }
  if (stream && !to.host_accessible()) {
    order_streams(to, stream_of_managed(to), *stream);
    leaving = until_done_on(std::move(leaving), *stream, run_with_gil);
  }
  return leaving;
}

PyObject* export_dlpack(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                        PyObject* names) {
  return guarded([&] {
    Arguments<4> parsed("__dlpack__", {"stream", "max_version", "dl_device", "copy"});
    parsed.parse(0, arguments, count, names);
    const ManagedTensor& tensor = managed_of(self);
    const bool versioned = wants_versioned(parsed.get(1));
    const CopyRule copy = copy_rule(parsed.get(3), CopyRule::kWhenNeeded);
    const Device device = tensor.device();
    const auto stream = export_stream(parsed.get(0), device);
    if (!versioned &&
        conditions_of_flags(tensor.flags(), tensor.dtype()).has(Condition::kPaddedElements)) {
      refuse_export("whose elements are padded to whole bytes in a legacy capsule",
                    "the legacy struct cannot say so", "max_version=(1, 3)");
    }
    Device to = device;
    if (parsed.get(2) != Py_None) {
      const Device wanted = device_pair(parsed.get(2));
      const bool here = wanted == device || (wanted.type == kDLCPU && device.host_accessible());
      const bool reached = wanted.type == kDLCPU && device_runtime(device.type) != nullptr;
      if (!here && (!reached || copy == CopyRule::kNever)) {
        refuse_export("on " + to_string(device) + " to " + to_string(wanted),
                      reached ? "that is a copy, and copy=False forbids it"
                              : "a ManagedTensor stays where it is",
                      "dlbridge.from_dlpack(x, device=...)");
      }
      to = here ? device : wanted;
    }
    if (!versioned && tensor.readonly() && copy != CopyRule::kAlways && to == device) {
      refuse_export("that nobody may write to in a legacy capsule",
                    "the legacy struct cannot say so",
                    "max_version=(1, 3), or copy=True to export a writable copy");
    }
    return make_capsule(exported(self, copy, to, stream), versioned);
  });
}

PyObject* export_device(PyObject* self, PyObject* /*unused*/) {
  const Device device = managed_of(self).device();
  return Py_BuildValue("(ii)", device.type, device.id);
}

PyObject* export_array(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                       PyObject* names) {
  return guarded([&] {
    Arguments<2> parsed("__array__", {"dtype", "copy"});
    parsed.parse(2, arguments, count, names);
    const Call call = read_call({.dtype = parsed.get(0), .copy = parsed.get(1)});
    return watched([&] { return cross(self, kToNumPy, call); });
  });
}

// bytes(x) as the buffer protocol would have it, whose own copy would hold the GIL.
PyObject* to_bytes(PyObject* self, PyObject* /*unused*/) {
  return guarded([&] {
    Py_buffer view;
    checked(PyObject_GetBuffer(self, &view, PyBUF_FULL_RO));  // refuses what is no buffer
    PyBuffer_Release(&view);
    Ref bytes = checked(PyBytes_FromStringAndSize(nullptr, view.len));
    Door door(self, kManagedTensorWay, {});
    DLTensor into = door.source.tensor;
    into.data = PyBytes_AS_STRING(bytes.get());
    into.byte_offset = 0;
    into.strides = nullptr;
    into.device = Device{}.dl();
    {
      const Door::Copying scope(door, view.len, false);
      carry_out_into(Leg{Who::kEngine, 0, into.dtype, Device{}}, door.source, into);
    }
    return bytes;
  });
}

PyObject* show_in_notebook(PyObject* self, PyObject* /*unused*/) {
  return guarded([&] { return PyObject_CallOneArg(managed_tensor_page.get(), self); });
}

PyObject* reduce(PyObject* self, PyObject* protocol) {
  return guarded(
      [&] { return PyObject_CallFunctionObjArgs(reduce_managed.get(), self, protocol, nullptr); });
}

PyGetSetDef attributes[] = {
    attribute<shape_of>("shape", "The size of each dimension."),
    attribute<strides_of>("strides", "The step along each dimension, in elements."),
    attribute<dtype_of>("dtype", "The type: code, bits, lanes, and a name as str."),
    attribute<device_of>("device", "The device: a pair of its type and id."),
    attribute<readonly_of>("readonly", "Whether nobody may write to the memory."),
    attribute<address_of>("data_ptr", "The address of the first element."),
    attribute<ndim_of>("ndim", "The number of dimensions."),
    attribute<nbytes_of>("nbytes", "The bytes of the elements, packed."),
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
    {"__bytes__", to_bytes, METH_NOARGS, "__bytes__()\n--\n\nThe elements in C order."},
    {"_repr_html_", show_in_notebook, METH_NOARGS,
     "_repr_html_()\n--\n\nWhat a notebook shows: a line, and the strides."},
    {"__reduce_ex__", reduce, METH_O,
     "__reduce_ex__(protocol, /)\n--\n\nFrom protocol 5 on the memory is a buffer out of band."},
    {nullptr, nullptr, 0, nullptr}};

PyTypeObject make_type() {
  PyTypeObject type =
      type_of_ours("dlbridge.ManagedTensor", sizeof(ManagedTensorObject), deallocate);
  type.tp_doc =
      "A tensor of no library: memory, shape, strides, type and device, owned through DLPack.\n\n"
      "Made by from_dlpack(); exported to any library, as often as wanted, through DLPack's\n"
      "capsules and exchange table, the buffer protocol, or to_numpy() and to_torch().";
  type.tp_weaklistoffset = offsetof(ManagedTensorObject, weak_references);
  type.tp_repr = represent;
  type.tp_getset = attributes;
  type.tp_methods = methods;
  type.tp_as_buffer = &managed_tensor_buffer;
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

Ref hold(PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2 || !is_managed_tensor(arguments[0])) {
    raise(PyExc_TypeError, "hold() takes a ManagedTensor and what it is to keep");
  }
  const ManagedTensor& managed = managed_of(arguments[0]);
  PyObject* both = checked(PyTuple_Pack(2, arguments[0], arguments[1])).release();
  return wrap(ManagedTensor::own(managed.tensor(), managed.flags(), python_lease(both)));
}

}  // namespace dlbridge::python
