#pragma once

#include "targets/target.hpp"
#include "torch/torch_road.hpp"

namespace dlbridge::python {

/// torch.Tensor, by whichever road leads to this torch, which is imported if nobody has done so
/// yet.
class TorchTarget final : public Target {
 public:
  TorchTarget() : Target(Towards::kTorch, torch_or_managed_stream) {}

  [[nodiscard]] bool owns(const Door& door) const override { return door.is_of(kTorchWay); }
  [[nodiscard]] const Capabilities& capabilities(Door& door, const Call& call) const override {
    const Device device = call.request.device.value_or(door.source.tensor.device);
    return device.host_accessible() ? of_road() : on_this_machine(of_road(), device, door);
  }
  [[nodiscard]] const Capabilities* at_a_glance(const Way& way) const override {
    return &way == &kTorchWay ? nullptr : &of_road();
  }
  [[nodiscard]] Ref made_of(ManagedTensor tensor) const override;
  [[nodiscard]] Ref deliver(Door& door, const Plan& plan, const Call& call) const override;

 private:
  [[nodiscard]] static const Capabilities& of_road() {
    const TorchRoad* road = torch_road();
    if (road == nullptr) {
      throw PythonError();
    }
    return road->capabilities();
  }
  // torch's stream, where a runtime of ours can order it; otherwise its producer's own affair.
  [[nodiscard]] static Stream torch_or_managed_stream(Device device);
  [[nodiscard]] static const Capabilities& on_this_machine(const Capabilities& torch, Device device,
                                                           Door& door);
};

extern const TorchTarget kToTorch;

}  // namespace dlbridge::python
