#include "dlbridge/device.hpp"

#include <array>
#include <charconv>

namespace dlbridge {
namespace {

struct NamedDevice {
  std::string_view name;
  std::int32_t type;
};

constexpr std::array kNamedDevices = {
    NamedDevice{"cpu", kDLCPU},
    NamedDevice{"cuda", kDLCUDA},
    NamedDevice{"cuda_host", kDLCUDAHost},
    NamedDevice{"opencl", kDLOpenCL},
    NamedDevice{"vulkan", kDLVulkan},
    NamedDevice{"metal", kDLMetal},
    NamedDevice{"vpi", kDLVPI},
    NamedDevice{"rocm", kDLROCM},
    NamedDevice{"rocm_host", kDLROCMHost},
    NamedDevice{"ext_dev", kDLExtDev},
    NamedDevice{"cuda_managed", kDLCUDAManaged},
    NamedDevice{"oneapi", kDLOneAPI},
    NamedDevice{"webgpu", kDLWebGPU},
    NamedDevice{"hexagon", kDLHexagon},
    NamedDevice{"maia", kDLMAIA},
    NamedDevice{"trn", kDLTrn},
};

}  // namespace

bool known_device_type(std::int32_t type) noexcept {
  for (const auto& row : kNamedDevices) {
    if (row.type == type) {
      return true;
    }
  }
  return false;
}

std::string to_string(Device device) {
  for (const auto& row : kNamedDevices) {
    if (row.type == device.type) {
      std::string text(row.name);
      if (device.type == kDLCPU && device.id == 0) {
        return text;
      }
      return text + ":" + std::to_string(device.id);
    }
  }
  return "device(" + std::to_string(device.type) + "):" + std::to_string(device.id);
}

std::optional<Device> device_named(std::string_view text) {
  const auto colon = text.find(':');
  std::int32_t id = 0;
  if (colon != std::string_view::npos) {
    const auto digits = text.substr(colon + 1);
    const auto* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, id);
    if (error != std::errc{} || stop != end || id < 0) {
      return std::nullopt;
    }
  }
  for (const auto& row : kNamedDevices) {
    if (row.name == text.substr(0, colon)) {
      return Device{row.type, id};
    }
  }
  return std::nullopt;
}

}  // namespace dlbridge
