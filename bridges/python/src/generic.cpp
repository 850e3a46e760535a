#include "generic.hpp"

#include <dlfcn.h>

#include <cstring>

#include "capsule.hpp"
#include "devices.hpp"
#include "dlbridge/python_lease.hpp"
#include "interfaces.hpp"
#include "registry.hpp"

namespace dlbridge::python {
namespace {

// Whether a TypeError says that the producer does not know the keyword: the only error that may
// lead to a second try without it. Anything else is the producer's own.
bool is_about_keyword(const char* keyword) {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  bool about = false;
  if (type == PyExc_TypeError && value != nullptr) {
    const Ref text(PyObject_Str(value));
    const char* bytes = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
    if (bytes != nullptr) {
      // Python functions and pybind11 name the keyword or the signature; C functions without any
      // keyword say so.
      about = std::strstr(bytes, keyword) != nullptr ||
              std::strstr(bytes, "takes no keyword arguments") != nullptr ||
              std::strstr(bytes, "incompatible function arguments") != nullptr;
    } else if (PyErr_ExceptionMatches(PyExc_MemoryError) != 0) {
      Py_XDECREF(type);
      Py_XDECREF(value);
      Py_XDECREF(traceback);
      throw PythonError();
    }
    PyErr_Clear();
  }
  PyErr_Restore(type, value, traceback);
  return about;
}

Ref call_dlpack(PyObject* method, PyObject* keywords) {
  const Ref nothing = checked(PyTuple_New(0));
  return Ref(PyObject_Call(method, nothing.get(), keywords));
}

// Devices whose producers take the keyword `stream`, and any other that a runtime here reaches.
bool has_streams(Device device) {
  return device.type == kDLCUDA || device.type == kDLCUDAManaged || device.type == kDLROCM ||
         (device.type != kDLCUDAHost && runtime_for(device.type) != nullptr);
}

// The pair that the object declares, or nothing where it has no such method. Paddle and pandas give
// (1, None); types may be enumerations.
std::optional<Device> declared_device(PyObject* object, const Crossing& crossing) {
  const Ref method(PyObject_GetAttrString(object, "__dlpack_device__"));
  if (!method) {
    if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
      throw PythonError();
    }
    PyErr_Clear();
    return std::nullopt;
  }
  const Ref pair = checked(PyObject_CallNoArgs(method.get()));
  if (PySequence_Check(pair.get()) == 0 || PySequence_Size(pair.get()) != 2) {
    forget_error();
    refuse(crossing, "its __dlpack_device__() is no pair of a device type and an id");
  }
  const auto number = [&](Py_ssize_t index) -> std::int32_t {
    const Ref item = checked(PySequence_GetItem(pair.get(), index));
    if (item.get() == Py_None) {
      return 0;
    }
    const Ref plain(PyNumber_Long(item.get()));
    const long value = plain ? PyLong_AsLong(plain.get()) : -1;
    if (PyErr_Occurred() != nullptr || value != static_cast<std::int32_t>(value)) {
      forget_error();
      refuse(crossing, "its __dlpack_device__() does not hold the numbers of a device");
    }
    return static_cast<std::int32_t>(value);
  };
  return Device(number(0), number(1));
}

// Two names for host memory are no lie: torch's pinned tensors declare (3, 0) and export kDLCPU.
bool same_place(Device declared, Device found) {
  return declared.type == found.type || (declared.host_accessible() && found.host_accessible());
}

ManagedTensor take_result(PyObject* result, const Crossing& crossing, bool legacy_writable) {
  if (!PyCapsule_CheckExact(result)) {
    refuse(crossing, std::string("its __dlpack__() returned a ") + Py_TYPE(result)->tp_name +
                         " instead of a capsule");
  }
  return take_capsule(result, legacy_writable);
}

// The stream that a producer is told of. Never None for a device with streams (law 6).
Stream reading_stream(Device device, const Crossing& crossing) {
  if (crossing.reader) {
    return *crossing.reader;
  }
  const bool there = runtime_for(device.type) != nullptr && !device.host_accessible();
  return crossing.towards_torch && there ? torch_stream(device) : stream_of_managed(device);
}

ManagedTensor call_producer(PyObject* object, Crossing& crossing, bool legacy_writable) {
  const auto declared = declared_device(object, crossing);
  const Ref method = checked(PyObject_GetAttrString(object, "__dlpack__"));
  const Ref keywords = checked(PyDict_New());
  if (!wants_bare_call(Py_TYPE(object))) {
    const Ref version = checked(Py_BuildValue("(ii)", kVersion.major, kVersion.minor));
    checked(PyDict_SetItemString(keywords.get(), "max_version", version.get()));
  }
  if (declared && has_streams(*declared)) {
    crossing.source.stream = reading_stream(*declared, crossing);
    const Ref stream = stream_number(declared->type, crossing.source.stream);
    checked(PyDict_SetItemString(keywords.get(), "stream", stream.get()));
  }
  Ref result = call_dlpack(method.get(), keywords.get());
  if (!result && item_of(keywords.get(), "max_version") && is_about_keyword("max_version")) {
    PyErr_Clear();
    checked(PyDict_DelItemString(keywords.get(), "max_version"));
    result = call_dlpack(method.get(), keywords.get());
    if (result) {
      remember_bare_call(Py_TYPE(object));
    }
  }
  if (!result) {
    throw PythonError();
  }
  ManagedTensor tensor = take_result(result.get(), crossing, legacy_writable);
  if (declared && !same_place(*declared, tensor.device())) {
    refuse(crossing, "it declares to be on " + to_string(*declared) + ", but its capsule is on " +
                         to_string(tensor.device()));
  }
  return tensor;
}

// The newest table of a major version that we understand: newer ones point back to older ones.
struct Table {
  Ref capsule;  // keeps it, though a table has to live as long as the process
  const DLPackExchangeAPI* functions = nullptr;
};

Table understood_table(PyObject* object) {
  Table found;
  found.capsule = Ref(PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object)),
                                             "__dlpack_c_exchange_api__"));
  forget_error();
  if (!found.capsule || PyCapsule_IsValid(found.capsule.get(), "dlpack_exchange_api") == 0) {
    return found;
  }
  const auto* header = static_cast<const DLPackExchangeAPIHeader*>(
      PyCapsule_GetPointer(found.capsule.get(), "dlpack_exchange_api"));
  // There will not be so many versions: a longer chain leads in a circle.
  constexpr int kLongestChain = 64;
  for (int i = 0; header != nullptr && header->version.major > DLPACK_MAJOR_VERSION; ++i) {
    header = i < kLongestChain ? header->prev_api : nullptr;
  }
  if (header == nullptr || header->version.major != DLPACK_MAJOR_VERSION) {
    return found;
  }
  const auto* table = reinterpret_cast<const DLPackExchangeAPI*>(header);
  if (table->managed_tensor_from_py_object_no_sync != nullptr) {
    found.functions = table;
  }
  return found;
}

ManagedTensor call_table(const DLPackExchangeAPI& table, PyObject* object, Crossing& crossing) {
  DLManagedTensorVersioned* tensor = nullptr;
  if (table.managed_tensor_from_py_object_no_sync(object, &tensor) != 0) {
    if (PyErr_Occurred() != nullptr) {
      throw PythonError();
    }
    refuse(crossing, "its exchange table failed without saying why");
  }
  if (tensor == nullptr) {
    refuse(crossing, "its exchange table returned no tensor");
  }
  ManagedTensor taken = ManagedTensor::adopt(tensor, run_foreign_deleter);
  if (PyErr_Occurred() != nullptr) {
    throw PythonError();  // it did not succeed, whatever it says
  }
  // Nothing was ordered: the memory is its library's current stream's.
  const DLDevice device = taken.tensor().device;
  if (has_streams(device) && table.current_work_stream != nullptr &&
      table.current_work_stream(device.device_type, device.device_id,
                                &crossing.source.stream.handle) != 0) {
    throw PythonError();
  }
  return taken;
}

// Managed memory is read by the processor where it lies, once the device is done with it (neither
// DLPack nor NumPy waits). A runtime waits for the stream alone; this is for where there is none.
// Where no CUDA driver is loaded, nothing can be under way.
void wait_for_managed_memory() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (driver == nullptr) {
    return;
  }
  if (auto* synchronise = reinterpret_cast<int (*)()>(dlsym(driver, "cuCtxSynchronize"))) {
    Py_BEGIN_ALLOW_THREADS synchronise();
    Py_END_ALLOW_THREADS
  }
  dlclose(driver);
}

// A copy that was asked for is believed when its flag is set or its address is another.
void require_copied(const ManagedTensor& tensor, const Crossing& crossing,
                    const std::string& asked) {
  if (tensor.data() == crossing.source.tensor.data &&
      (tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) == 0 &&
      element_count(tensor.tensor()) != 0) {
    refuse(crossing, asked + ", and did not copy");
  }
}

[[noreturn]] void raise_no_array(PyObject* object) {
  raise(PyExc_TypeError, std::string("expected an array or tensor, not ") +
                             Py_TYPE(object)->tp_name +
                             " (it has none of the exchange table, __dlpack__, the array "
                             "interfaces and the buffer protocol)");
}

// Takes the object by the door of its kind, and describes what came.
void take_by_protocol(PyObject* object, SourceKind kind, Crossing& crossing) {
  const bool immutable = crossing.row != nullptr && crossing.row->immutable;
  if (kind == SourceKind::kBuffer || kind == SourceKind::kArrayInterface ||
      kind == SourceKind::kCudaArrayInterface) {
    take_interface(object, kind, crossing);
    return;
  }
  const Table table = kind == SourceKind::kExchangeTable ? understood_table(object) : Table();
  if (kind == SourceKind::kCapsule) {
    crossing.taken = take_capsule(object, false);
  } else if (table.functions != nullptr) {
    crossing.taken = call_table(*table.functions, object, crossing);
  } else if (kind == SourceKind::kExchangeTable &&
             PyObject_HasAttrString(object, "__dlpack__") == 0) {
    refuse(crossing,
           "its exchange table is of no version that is understood, or incomplete, and it "
           "has no __dlpack__()");
  } else {
    crossing.taken =
        call_producer(object, crossing, crossing.row != nullptr && crossing.row->legacy_writable);
  }
  if (immutable) {
    crossing.taken.mark_read_only();
  }
  if (crossing.taken.device().type == kDLCUDAManaged && runtime_for(kDLCUDAManaged) == nullptr) {
    wait_for_managed_memory();
  }
  describe(crossing.taken, *crossing.library, crossing.source);
  crossing.source.traits.copies_to_host =
      kind == SourceKind::kDLPack || kind == SourceKind::kExchangeTable;
}

}  // namespace

ManagedTensor described_as(ManagedTensor tensor, const DLTensor& described, std::uint64_t flags) {
  const Lease lease{tensor.release(), [](void* held) noexcept {
                      auto* managed = static_cast<DLManagedTensorVersioned*>(held);
                      managed->deleter(managed);
                    }};
  return ManagedTensor::own(described, flags, lease);
}

void refuse(const Crossing& crossing, const std::string& fault) {
  throw ConversionRefused("cannot take a " + crossing.object_name + " in: " + fault, {fault});
}

void name_library(PyObject* object, Crossing& crossing) {
  const LibraryRow* row = library_of(Py_TYPE(object));
  const char* type = Py_TYPE(object)->tp_name;
  crossing.row = row;
  if (row == nullptr) {
    crossing.object_name = type;
  } else if (!row->object.empty()) {
    crossing.object_name = row->object;
  } else {
    const char* dot = std::strrchr(type, '.');
    crossing.object_name = row->name + "." + (dot == nullptr ? type : dot + 1);
  }
  if (row == nullptr && PyBytes_CheckExact(object)) {
    crossing.object_name = "bytes object";  // "a bytes" would read badly
  }
  Library& library = crossing.library.emplace();
  library.name = crossing.object_name;
  library.object = crossing.object_name;
  std::size_t count = 0;
  if (row != nullptr) {
    for (const auto& [condition, call] : row->fixes) {
      if (count < library.fixes.size()) {
        library.fixes[count++] = {condition, call};
      }
    }
  }
}

void take_generic(PyObject* object, SourceKind kind, Crossing& crossing) {
  name_library(object, crossing);
  const LibraryRow* row = crossing.row;
  crossing.source.traits.library = &*crossing.library;
  // A class is no tensor, whatever library it is of.
  if (kind == SourceKind::kNothing && (row == nullptr || PyType_Check(object) != 0)) {
    raise_no_array(object);
  }
  if (row == nullptr) {
    take_by_protocol(object, kind, crossing);
    return;
  }
  const Conditions found = conditions_by(*row, object);
  const Ref read = read_by(*row, object);
  if (read.get() != object) {
    // NumPy arrays and tensors of torch have doors of their own too.
    kind = kind_of(read.get());
    kind = kind == SourceKind::kNumPy ? SourceKind::kDLPack : kind;
  }
  if (kind == SourceKind::kNothing) {
    raise_no_array(object);
  }
  take_by_protocol(read.get(), kind, crossing);
  crossing.source.traits.conditions |= found;
}

ManagedTensor ask_for_host_copy(PyObject* object, const Crossing& crossing) {
  const Ref method = checked(PyObject_GetAttrString(object, "__dlpack__"));
  const Ref keywords =
      checked(Py_BuildValue("{s(ii)s(ii)}", "max_version", kVersion.major, kVersion.minor,
                            "dl_device", static_cast<int>(kDLCPU), 0));
  const Ref result = call_dlpack(method.get(), keywords.get());
  const std::string from = to_string(Device(crossing.source.tensor.device));
  if (!result) {
    if (is_about_keyword("dl_device") || is_about_keyword("max_version")) {
      PyErr_Clear();
      refuse(crossing, "it is on " + from +
                           ", and its library does not copy to the host when asked through DLPack");
    }
    throw PythonError();
  }
  ManagedTensor tensor = take_result(result.get(), crossing, true);
  if (!tensor.device().host_accessible()) {
    refuse(crossing, "it was asked to copy from " + from +
                         " to the host, and answered with memory "
                         "on " +
                         to_string(tensor.device()));
  }
  require_copied(tensor, crossing, "it was asked to copy from " + from + " to the host");
  if (tensor.readonly() && (tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0) {
    // dpnp 0.20 marks its host copies read-only; what was made for this crossing is nobody else's.
    const DLTensor described = tensor.tensor();
    const std::uint64_t flags = tensor.flags() & ~std::uint64_t{DLPACK_FLAG_BITMASK_READ_ONLY};
    return described_as(std::move(tensor), described, flags);
  }
  return tensor;
}

ManagedTensor ask_for_copy(PyObject* object, const Crossing& crossing) {
  const std::string where = to_string(Device(crossing.source.tensor.device));
  const Ref method = checked(PyObject_GetAttrString(object, "__dlpack__"));
  const Ref keywords = checked(
      Py_BuildValue("{s(ii)sO}", "max_version", kVersion.major, kVersion.minor, "copy", Py_True));
  const Ref result = call_dlpack(method.get(), keywords.get());
  if (!result) {
    if (is_about_keyword("copy") || is_about_keyword("max_version")) {
      PyErr_Clear();
      refuse(crossing, "it is on " + where +
                           ", and its library does not copy there when asked through DLPack");
    }
    throw PythonError();
  }
  ManagedTensor tensor = take_result(result.get(), crossing, true);
  require_copied(tensor, crossing, "it was asked to copy on " + where);
  return tensor;
}

}  // namespace dlbridge::python
