// torch's tensors, by whichever road leads to this torch.

#include "doors/dlpack_door.hpp"
#include "torch/torch_road.hpp"

namespace dlbridge::python {
namespace {

ManagedTensor lease_by_road(PyObject* tensor, Source& source) {
  Lease lease;
  if (!torch_road()->lease(tensor, source, lease)) {
    throw PythonError();
  }
  return ManagedTensor::own_trusted(source.tensor, 0, lease);
}

void describe(Door& door) {
  describe_by_road(torch_road(), door.object, door.source);
}

ManagedTensor acquire(Door& door) {
  return lease_by_road(door.object, door.source);
}

ManagedTensor prepare(Door& door, const Leg& leg, Source& made) {
  door.held = checked(torch_road()->prepare(door.object, leg));
  describe_by_road(torch_road(), door.held.get(), made);
  if (const Device there(made.tensor.device);
      !there.host_accessible() && runtime_for(there.type) != nullptr) {
    made.stream = torch_stream(there);
  }
  return lease_by_road(door.held.get(), made);
}

}  // namespace

const Way kTorchWay{describe, acquire, prepare, take_by_dlpack};

}  // namespace dlbridge::python
