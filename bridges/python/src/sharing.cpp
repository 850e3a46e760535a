#include "sharing.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "crossing.hpp"
#include "dlbridge/shared_memory.hpp"
#include "targets/shared_target.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

constexpr std::array<const char*, 3> kModes = {"read", "give", "write"};

SharedMode mode_named(PyObject* name) {
  for (std::size_t i = 0; i < kModes.size(); ++i) {
    if (is_text(name, kModes[i])) {
      return static_cast<SharedMode>(i);
    }
  }
  raise(PyExc_ValueError,
        "mode=" + shown(name) + " is no mode; use one of 'read', 'give', 'write'");
}

// The message of a tree's tensors: (tensors, mode, note).
Message message_of(PyObject* tensors, PyObject* mode, const Buffer& note) {
  const Ref all = checked(PySequence_Fast(tensors, "the tensors of a message are a list"));
  std::vector<ManagedTensor> shares;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(all.get()); ++i) {
    PyObject* each = PySequence_Fast_GET_ITEM(all.get(), i);
    if (!is_managed_tensor(each)) {
      raise(PyExc_TypeError, "the tensors of a message are ManagedTensors");
    }
    shares.push_back(managed_of(each).share());
  }
  return pack(shares, mode_named(mode), note.bytes());
}

Ref bytes_of(const std::vector<std::byte>& bytes) {
  return checked(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                           static_cast<Py_ssize_t>(bytes.size())));
}

// (mode, tensors, note)
Ref received_object(Received received) {
  const Ref tensors = checked(PyList_New(0));
  for (ManagedTensor& tensor : received.tensors) {
    checked(PyList_Append(tensors.get(), wrap(std::move(tensor)).get()));
  }
  const Ref note = bytes_of(received.note);
  return checked(Py_BuildValue("(sOO)", kModes[static_cast<std::size_t>(received.mode)],
                               tensors.get(), note.get()));
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
    bytes += SharedArena::room_for(static_cast<std::size_t>(decided.bytes_copied));
    return Ref::borrow(object);
  };
  if (way_into(x) != nullptr) {
    (void)add(x);
  } else {
    call.request.leaf = true;
    (void)map_tree(x, add);
  }
  return checked(PyLong_FromSize_t(bytes));
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

// pack_shared(tensors, mode, note) -> (bytes, descriptors), which the caller closes.
Ref pack_shared(ArgumentTuple arguments) {
  PyObject* tensors = nullptr;
  PyObject* mode = nullptr;
  Buffer note;
  arguments.read("OOy*", &tensors, &mode, static_cast<Py_buffer*>(&note));
  Message message = message_of(tensors, mode, note);
  const Ref bytes = bytes_of(message.bytes);
  Ref numbers = checked(PyList_New(0));
  for (const OwnedDescriptor& each : message.descriptors) {
    checked(PyList_Append(numbers.get(), checked(PyLong_FromLong(each.get())).get()));
  }
  Ref both = checked(PyTuple_Pack(2, bytes.get(), numbers.get()));
  for (OwnedDescriptor& each : message.descriptors) {
    (void)each.release();
  }
  return both;
}

// unpack_shared(bytes, descriptors) -> (mode, tensors, note). The descriptors are its own from the
// call on, whatever comes of it.
Ref unpack_shared(ArgumentTuple arguments) {
  PyObject* message = nullptr;
  PyObject* numbers = nullptr;
  arguments.read("OO!", &message, &PyList_Type, &numbers);
  std::vector<OwnedDescriptor> descriptors;
  descriptors.reserve(static_cast<std::size_t>(PyList_GET_SIZE(numbers)));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(numbers); ++i) {
    // One that is no number is an error when the others have their owner.
    descriptors.emplace_back(static_cast<int>(PyLong_AsLong(PyList_GET_ITEM(numbers, i))));
  }
  check_error();
  Buffer bytes;
  checked(PyObject_GetBuffer(message, &bytes, PyBUF_SIMPLE));
  return received_object(unpack(bytes.bytes(), std::move(descriptors)));
}

// send_shared(socket, tensors, mode, note, milliseconds)
Ref send_shared(ArgumentTuple arguments) {
  int socket = -1;
  PyObject* tensors = nullptr;
  PyObject* mode = nullptr;
  Buffer note;
  PyObject* milliseconds = nullptr;
  arguments.read("iOOy*O", &socket, &tensors, &mode, static_cast<Py_buffer*>(&note), &milliseconds);
  const Message message = message_of(tensors, mode, note);
  const Waiting waiting = waiting_for(milliseconds);
  without_gil([&] { send(socket, message, waiting); });
  return Ref::borrow(Py_None);
}

// receive_shared(socket, milliseconds) -> (mode, tensors, note), or None where the sender has
// ended.
Ref receive_shared(ArgumentTuple arguments) {
  int socket = -1;
  PyObject* milliseconds = nullptr;
  arguments.read("iO", &socket, &milliseconds);
  const Waiting waiting = waiting_for(milliseconds);
  std::optional<Received> received = without_gil([&] { return receive(socket, waiting); });
  return received ? received_object(std::move(*received)) : Ref::borrow(Py_None);
}

}  // namespace dlbridge::python
