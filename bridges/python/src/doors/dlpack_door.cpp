#include "doors/dlpack_door.hpp"

#include <cstring>

#include "devices/devices.hpp"
#include "registry.hpp"
#include "types/capsule.hpp"

namespace dlbridge::python {

bool is_about_keyword(const char* keyword) {
  KeepError raised;
  if (raised.type() != PyExc_TypeError || raised.value() == nullptr) {
    return false;
  }
  const Ref text(PyObject_Str(raised.value()));
  const char* bytes = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (bytes == nullptr) {
    if (PyErr_ExceptionMatches(PyExc_MemoryError) != 0) {
      raised.drop();
      throw PythonError();
    }
    return false;
  }
  // Python functions and pybind11 name the keyword or the signature; C functions without any
  // keyword say so.
  const std::string name = std::string("'") + keyword + "'";
  return std::strstr(bytes, name.c_str()) != nullptr ||
         std::strstr(bytes, "takes no keyword arguments") != nullptr ||
         std::strstr(bytes, "incompatible function arguments") != nullptr;
}

namespace {

Ref call_dlpack(PyObject* method, PyObject* keywords) {
  const Ref nothing = checked(PyTuple_New(0));
  return Ref(PyObject_Call(method, nothing.get(), keywords));
}

// The pair that the object declares, or nothing where it has no such method. Paddle and pandas give
// (1, None); types may be enumerations.
std::optional<Device> declared_device(const Door& door) {
  const Ref method(PyObject_GetAttrString(door.readable, "__dlpack_device__"));
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
    refuse(door, "its __dlpack_device__() is no pair of a device type and an id");
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
      refuse(door, "its __dlpack_device__() does not hold the numbers of a device");
    }
    return static_cast<std::int32_t>(value);
  };
  return Device(number(0), number(1));
}

// Two names for host memory are no lie: torch's pinned tensors declare (3, 0) and export kDLCPU.
bool is_no_lie(Device declared, Device found) {
  return declared.type == found.type || (declared.host_accessible() && found.host_accessible());
}

ManagedTensor take_result(PyObject* result, const Door& door, bool legacy_writable) {
  if (!PyCapsule_CheckExact(result)) {
    refuse(door, std::string("its __dlpack__() returned a ") + Py_TYPE(result)->tp_name +
                     " instead of a capsule");
  }
  return take_capsule(result, legacy_writable);
}

ManagedTensor call_producer(Door& door, const Ref& method, bool legacy_writable) {
  const auto declared = declared_device(door);
  const Ref keywords = checked(PyDict_New());
  const bool bare = wants_bare_call(Py_TYPE(door.readable));
  if (!bare) {
    const Ref version = checked(Py_BuildValue("(ii)", kVersion.major, kVersion.minor));
    checked(PyDict_SetItemString(keywords.get(), "max_version", version.get()));
  }
  if (declared && stream_numbers(declared->type)) {
    // Never None for a device with streams (law 6).
    door.source.stream = door.look.stream ? *door.look.stream : door.look.reader(*declared);
    const Ref stream = stream_number(declared->type, door.source.stream);
    checked(PyDict_SetItemString(keywords.get(), "stream", stream.get()));
  }
  if (door.look.never_copies) {
    checked(PyDict_SetItemString(keywords.get(), "copy", Py_False));
  }
  Ref result = call_dlpack(method.get(), keywords.get());
  // A producer names the first keyword that it does not know: there may be another.
  bool tells = door.look.never_copies;
  bool asks = !bare;
  while (!result && (tells || asks)) {
    const bool of_copy = tells && is_about_keyword("copy");
    if (!of_copy && !(asks && is_about_keyword("max_version"))) {
      break;
    }
    (of_copy ? tells : asks) = false;
    PyErr_Clear();
    checked(PyDict_DelItemString(keywords.get(), of_copy ? "copy" : "max_version"));
    result = call_dlpack(method.get(), keywords.get());
  }
  if (result && !bare && !asks) {
    remember_bare_call(Py_TYPE(door.readable));
  }
  if (!result) {
    throw PythonError();
  }
  ManagedTensor tensor = take_result(result.get(), door, legacy_writable);
  if (declared && !is_no_lie(*declared, tensor.device())) {
    refuse(door, "it declares to be on " + to_string(*declared) + ", but its capsule is on " +
                     to_string(tensor.device()));
  }
  return tensor;
}

// A copy that was asked for is believed when its flag is set or its address is another.
void require_copied(const ManagedTensor& tensor, const Door& door, const std::string& asked) {
  if (tensor.data() == door.source.tensor.data &&
      (tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) == 0 &&
      element_count(tensor.tensor()) != 0) {
    refuse(door, asked + ", and did not copy");
  }
}

}  // namespace

void describe_taken(Door& door) {
  if (door.row != nullptr && door.row->immutable) {
    door.taken.mark_read_only();
  }
  if (const Device device = door.taken.device(); device.type != kDLCPU) {
    wait_without_runtime(device);
  }
  dlbridge::describe(door.taken, *door.library, door.source);
}

void describe_export(Door& door) {
  describe_taken(door);
  Traits& traits = door.source.traits;
  const bool copied = (door.taken.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0 &&
                      element_count(door.taken.tensor()) != 0;
  traits.conditions.add_if(copied, Condition::kCopiesOut);
  traits.is_copy = copied && !door.taken.readonly() && is_c_contiguous(door.taken.tensor()) &&
                   is_aligned(door.taken.tensor(), {});
  traits.copies_to_host = true;
  traits.copies_there = true;
}

void take_by_dlpack(Door& door) {
  const Ref method(PyObject_GetAttrString(door.readable, "__dlpack__"));
  if (!method) {
    take_by_next_way(door);
    return;
  }
  door.taken = call_producer(door, method, door.row != nullptr && door.row->legacy_writable);
  describe_export(door);
}

ManagedTensor give_taken(Door& door) {
  return std::move(door.taken);
}

ManagedTensor ask_for_copy(const Door& door, const Leg& leg) {
  const bool to_host = leg.has(Step::kCopyToHost);
  const Ref method = checked(PyObject_GetAttrString(door.readable, "__dlpack__"));
  const Ref keywords =
      checked(to_host ? Py_BuildValue("{s(ii)s(ii)}", "max_version", kVersion.major, kVersion.minor,
                                      "dl_device", static_cast<int>(kDLCPU), 0)
                      : Py_BuildValue("{s(ii)sO}", "max_version", kVersion.major, kVersion.minor,
                                      "copy", Py_True));
  const Ref result = call_dlpack(method.get(), keywords.get());
  const std::string where = to_string(Device(door.source.tensor.device));
  if (!result) {
    if (is_about_keyword(to_host ? "dl_device" : "copy") || is_about_keyword("max_version")) {
      PyErr_Clear();
      refuse(door, "it is on " + where + ", and its library does not copy " +
                       (to_host ? "to the host" : "there") + " when asked through DLPack");
    }
    throw PythonError();
  }
  ManagedTensor tensor = take_result(result.get(), door, true);
  const std::string asked = to_host ? "it was asked to copy from " + where + " to the host"
                                    : "it was asked to copy on " + where;
  if (to_host && !tensor.device().host_accessible()) {
    refuse(door, asked + ", and answered with memory on " + to_string(tensor.device()));
  }
  require_copied(tensor, door, asked);
  // dpnp 0.20 marks its host copies read-only; what was made for this crossing is nobody else's.
  const bool marked = tensor.readonly() && (tensor.flags() & DLPACK_FLAG_BITMASK_IS_COPIED) != 0;
  return marked ? without_read_only(std::move(tensor)) : std::move(tensor);
}

ManagedTensor prepare_by_dlpack(Door& door, const Leg& leg, Source& made) {
  ManagedTensor tensor = ask_for_copy(door, leg);
  dlbridge::describe(tensor, *door.library, made);
  made.stream = door.look.reader(tensor.device());
  return tensor;
}

const Way kDLPackWay{describe_by_registry, give_taken, prepare_by_dlpack, take_by_dlpack};

}  // namespace dlbridge::python
