// torch's tensors, by whichever road leads to this torch.

#include "doors/dlpack_door.hpp"
#include "torch/torch_road.hpp"

namespace dlbridge::python {
namespace {

Glance plain(PyObject* tensor, DLTensor& described) {
  const TorchRoad* road = torch_road();
  if (road == nullptr) {
    throw PythonError();
  }
  return road->plain(tensor, described);
}

Lease lease(PyObject* tensor, DLTensor& described) {
  Lease held;
  if (!torch_road()->lease(tensor, described, held)) {
    throw PythonError();
  }
  return held;
}

ManagedTensor lease_by_road(PyObject* tensor, Source& source) {
  const Lease held = lease(tensor, source.tensor);
  return ManagedTensor::own_trusted(source.tensor, 0, held);
}

void describe(Door& door) {
  describe_by_road(torch_road(), door.readable, door.source);
}

ManagedTensor acquire(Door& door) {
  return lease_by_road(door.readable, door.source);
}

ManagedTensor prepare(Door& door, const Leg& leg, Source& made) {
  const Ref tensor = checked(torch_road()->prepare(door.readable, leg));
  describe_by_road(torch_road(), tensor.get(), made);
  if (const Device there(made.tensor.device);
      !there.host_accessible() && runtime_for(there.type) != nullptr) {
    made.stream = torch_stream(there);
  }
  // What is read may be held as well, and is described by what lies in it.
  door.held = checked(PyTuple_Pack(2, tensor.get(), door.readable));
  return lease_by_road(tensor.get(), made);
}

}  // namespace

const Way kTorchWay{describe, acquire, prepare, take_by_bridge, plain, lease};

}  // namespace dlbridge::python
