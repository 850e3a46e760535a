#include "sharing.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "crossing.hpp"
#include "devices/devices.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/shared_memory.hpp"
#include "targets/shared_target.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

SharedMode mode_named(PyObject* name) {
  for (std::size_t i = 0; i < kModes.size(); ++i) {
    if (is_text(name, kModes[i])) {
      return static_cast<SharedMode>(i);
    }
  }
  raise(PyExc_ValueError,
        "mode=" + shown(name) + " is no mode; use one of 'read', 'give', 'write'");
}

// Descriptors that are the caller's no more, whatever comes of it.
std::vector<OwnedDescriptor> taken_over(PyObject* numbers) {
  std::vector<OwnedDescriptor> descriptors;
  descriptors.reserve(static_cast<std::size_t>(PyList_GET_SIZE(numbers)));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(numbers); ++i) {
    // One that is no number, or too large, is an error when the others have their owner.
    PyObject* each = PyList_GET_ITEM(numbers, i);
    const long number = PyLong_AsLong(each);
    const bool fits = std::in_range<int>(number);
    descriptors.emplace_back(fits ? static_cast<int>(number) : -1);
    if (!fits) {
      PyErr_Format(PyExc_OverflowError, "%R is no number of a descriptor", each);
    }
  }
  check_error();
  return descriptors;
}

// Their numbers, which are the caller's to close.
Ref handed_over(std::vector<OwnedDescriptor>& descriptors) {
  Ref numbers = checked(PyList_New(0));
  for (const OwnedDescriptor& each : descriptors) {
    checked(PyList_Append(numbers.get(), checked(PyLong_FromLong(each.get())).get()));
  }
  return numbers;
}

void let_go(std::vector<OwnedDescriptor>& descriptors) {
  for (OwnedDescriptor& each : descriptors) {
    (void)each.release();
  }
}

// The message of a tree's tensors: (tensors, mode, note, the note's descriptors).
Message message_of(PyObject* tensors, PyObject* mode, const Buffer& note,
                   std::vector<OwnedDescriptor> of_note = {}) {
  const Ref all = checked(PySequence_Fast(tensors, "the tensors of a message are a list"));
  std::vector<ManagedTensor> shares;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(all.get()); ++i) {
    PyObject* each = PySequence_Fast_GET_ITEM(all.get(), i);
    if (!is_managed_tensor(each)) {
      raise(PyExc_TypeError, "the tensors of a message are ManagedTensors");
    }
    shares.push_back(managed_of(each).share());
  }
  return pack(shares, mode_named(mode), note.bytes(), std::move(of_note));
}

Ref bytes_of(const std::vector<std::byte>& bytes) {
  return checked(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                           static_cast<Py_ssize_t>(bytes.size())));
}

// (mode, tensors, note, the note's descriptors)
Ref received_object(Received received) {
  const Ref tensors = checked(PyList_New(0));
  for (ManagedTensor& tensor : received.tensors) {
    checked(PyList_Append(tensors.get(), wrap(std::move(tensor)).get()));
  }
  const Ref note = bytes_of(received.note);
  const Ref numbers = handed_over(received.of_note);
  Ref all = checked(Py_BuildValue("(sOOO)", kModes[static_cast<std::size_t>(received.mode)],
                                  tensors.get(), note.get(), numbers.get()));
  let_go(received.of_note);
  return all;
}

// After a signal, in the middle of a call that has let go of the GIL.
bool signals_let_go_on() {
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool on = PyErr_CheckSignals() == 0;
  PyGILState_Release(state);
  return on;
}

Waiting waiting_for(PyObject* milliseconds) {
  Waiting waiting{.timeout = {}, .go_on = signals_let_go_on};
  if (milliseconds != Py_None) {
    waiting.timeout = std::chrono::milliseconds(integer_of(milliseconds, "timeout"));
  }
  return waiting;
}

// A signal handler's exception goes before the error of the call that it ended.
template <typename Call>
auto without_gil(Call&& call) {
  try {
    const WithoutGil scope;
    return call();
  } catch (const std::system_error&) {
    check_error();
    throw;
  }
}

}  // namespace

// shared_target(mode, bytes): where share() crosses to.
Ref shared_target(ArgumentTuple arguments) {
  PyObject* mode = nullptr;
  PyObject* bytes = nullptr;
  arguments.read("OO", &mode, &bytes);
  return target_capsule(std::make_unique<SharedTarget>(mode_named(mode), size_of(bytes, "bytes")));
}

// shared_bytes(x, mode, policy): how much of a tree, or of a tensor, will be copied into its block.
Ref shared_bytes(ArgumentTuple arguments) {
  PyObject* x = nullptr;
  PyObject* mode = nullptr;
  PyObject* policy = nullptr;
  arguments.read("OOO", &x, &mode, &policy);
  const SharedTarget target(mode_named(mode));
  Call call = read_call({.policy = policy});
  std::size_t bytes = 0;
  const auto add = [&](PyObject* object) {
    Door door(object, way_into_tensor(object), {});
    const Plan decided = plan(door.source, met(door, target, call), call.policy, call.request);
    if (decided.device.host_accessible()) {
      bytes += SharedArena::room_for(static_cast<std::size_t>(decided.bytes_copied));
    }
    return Ref::borrow(object);
  };
  return watched([&] {
    if (way_into(x) != nullptr) {
      (void)add(x);
    } else {
      call.request.leaf = true;
      (void)map_tree(x, add);
    }
    return checked(PyLong_FromSize_t(bytes));
  });
}

// shared_allocate(shape, dtype, mode): new memory that can be shared so.
Ref shared_allocate(ArgumentTuple arguments) {
  PyObject* shape = nullptr;
  PyObject* dtype = nullptr;
  PyObject* mode = nullptr;
  arguments.read("O!OO", &PyTuple_Type, &shape, &dtype, &mode);
  const std::vector<std::int64_t> sizes = sizes_in(shape);
  if (std::any_of(sizes.begin(), sizes.end(), [](std::int64_t size) { return size < 0; })) {
    raise(PyExc_ValueError, "shape=" + shown(shape) + " has a negative size");
  }
  const DType type = dtype_argument(dtype);
  const SharedMode wanted = mode_named(mode);
  return wrap(without_gil([&] { return SharedArena(wanted).allocate(type, sizes); }));
}

// managed_stream(type, id): the handle of the stream that memory of managed tensors is ordered on.
Ref stream_of_managed_in_python(ArgumentTuple arguments) {
  int type = 0;
  int id = 0;
  arguments.read("ii", &type, &id);
  return checked(PyLong_FromVoidPtr(stream_of_managed(Device(type, id)).handle));
}

// tensor_over(owner, address, bytes, device, dtype, shape, strides, offset, read_only): the tensor
// that somebody says is in so many bytes of a device's memory, which `owner` keeps, ordered as
// memory of managed tensors is; without strides in C order.
Ref tensor_over(ArgumentTuple arguments) {
  PyObject* owner = nullptr;
  PyObject* address = nullptr;
  PyObject* bytes = nullptr;
  PyObject* device = nullptr;
  int code = 0;
  int bits = 0;
  int lanes = 0;
  PyObject* shape = nullptr;
  PyObject* strides = nullptr;
  PyObject* offset = nullptr;
  int read_only = 0;
  arguments.read("OOOO(iii)O!O!Op", &owner, &address, &bytes, &device, &code, &bits, &lanes,
                 &PyTuple_Type, &shape, &PyTuple_Type, &strides, &offset, &read_only);
  const std::vector<std::int64_t> sizes = sizes_in(shape);
  std::vector<std::int64_t> steps = sizes_in(strides);
  const auto base = static_cast<std::uintptr_t>(size_of(address, "address"));
  const auto size = static_cast<std::uintptr_t>(size_of(bytes, "bytes"));
  const auto first = static_cast<std::uintptr_t>(size_of(offset, "offset"));
  DLTensor tensor = detail::host_tensor(DType(code, bits, lanes), sizes);
  tensor.device = device_argument(device).dl();
  tensor.strides = steps.empty() ? nullptr : steps.data();
  tensor.data = reinterpret_cast<void*>(base + first);
  const bool sound = (steps.empty() || steps.size() == sizes.size()) && first <= size &&
                     tensor_fault(tensor).empty();
  const auto extent = sound ? extent_of(tensor) : std::nullopt;
  if (!extent || extent->first < base || extent->end - base > size) {
    const std::string fault = "a tensor in it reaches beyond its memory, or is malformed";
    throw ConversionRefused("cannot take a message in: " + fault, {fault});
  }
  return wrap(ManagedTensor::own(tensor, read_only != 0 ? DLPACK_FLAG_BITMASK_READ_ONLY : 0,
                                 python_lease(Ref::borrow(owner).release())));
}

// pack_shared(tensors, mode, note) -> (bytes, descriptors), which the caller closes.
Ref pack_shared(ArgumentTuple arguments) {
  PyObject* tensors = nullptr;
  PyObject* mode = nullptr;
  Buffer note;
  arguments.read("OOy*", &tensors, &mode, static_cast<Py_buffer*>(&note));
  Message message = message_of(tensors, mode, note);
  const Ref bytes = bytes_of(message.bytes);
  const Ref numbers = handed_over(message.descriptors);
  Ref both = checked(PyTuple_Pack(2, bytes.get(), numbers.get()));
  let_go(message.descriptors);
  return both;
}

// unpack_shared(bytes, descriptors) -> (mode, tensors, note, descriptors of the note). Those that
// it is given are its own from the call on.
Ref unpack_shared(ArgumentTuple arguments) {
  PyObject* message = nullptr;
  PyObject* numbers = nullptr;
  arguments.read("OO!", &message, &PyList_Type, &numbers);
  std::vector<OwnedDescriptor> descriptors = taken_over(numbers);
  Buffer bytes;
  checked(PyObject_GetBuffer(message, &bytes, PyBUF_SIMPLE));
  return received_object(unpack(bytes.bytes(), std::move(descriptors)));
}

// send_shared(socket, tensors, mode, note, milliseconds, [descriptors of the note]), which are its
// own from the call on.
Ref send_shared(ArgumentTuple arguments) {
  int socket = -1;
  PyObject* tensors = nullptr;
  PyObject* mode = nullptr;
  Buffer note;
  PyObject* milliseconds = nullptr;
  PyObject* numbers = nullptr;
  arguments.read("iOOy*O|O!", &socket, &tensors, &mode, static_cast<Py_buffer*>(&note),
                 &milliseconds, &PyList_Type, &numbers);
  const Message message =
      message_of(tensors, mode, note,
                 numbers == nullptr ? std::vector<OwnedDescriptor>() : taken_over(numbers));
  const Waiting waiting = waiting_for(milliseconds);
  without_gil([&] { send(socket, message, waiting); });
  return Ref::borrow(Py_None);
}

// receive_shared(socket, milliseconds) -> (mode, tensors, note, descriptors of the note), or None
// where the sender has ended.
Ref receive_shared(ArgumentTuple arguments) {
  int socket = -1;
  PyObject* milliseconds = nullptr;
  arguments.read("iO", &socket, &milliseconds);
  const Waiting waiting = waiting_for(milliseconds);
  std::optional<Received> received = without_gil([&] { return receive(socket, waiting); });
  return received ? received_object(std::move(*received)) : Ref::borrow(Py_None);
}

}  // namespace dlbridge::python
