#include "dlbridge/device.hpp"

#include <array>
#include <charconv>

namespace dlbridge {
namespace {

struct NamedDevice {
  std::string_view name;
  std::int32_t type;
  std::optional<StreamNumbers> streams = std::nullopt;
};

// DLPack's Python page, "stream": 1 is CUDA's default stream, of the legacy kind, and 2 the
// thread's own.
constexpr StreamNumbers kCudaStreams{.of_default = 1, .first_unused = 0, .last_unused = 0};
constexpr StreamNumbers kRocmStreams{.of_default = 0, .first_unused = 1, .last_unused = 2};

constexpr std::array kNamedDevices = {
    NamedDevice{"cpu", kDLCPU},
    NamedDevice{"cuda", kDLCUDA, kCudaStreams},
    NamedDevice{"cuda_host", kDLCUDAHost},
    NamedDevice{"opencl", kDLOpenCL},
    NamedDevice{"vulkan", kDLVulkan},
    NamedDevice{"metal", kDLMetal},
    NamedDevice{"vpi", kDLVPI},
    NamedDevice{"rocm", kDLROCM, kRocmStreams},
    NamedDevice{"rocm_host", kDLROCMHost},
    NamedDevice{"ext_dev", kDLExtDev},
    NamedDevice{"cuda_managed", kDLCUDAManaged, kCudaStreams},
    NamedDevice{"oneapi", kDLOneAPI},
    NamedDevice{"webgpu", kDLWebGPU},
    NamedDevice{"hexagon", kDLHexagon},
    NamedDevice{"maia", kDLMAIA},
    NamedDevice{"trn", kDLTrn},
    // DLPack's header after 1.3.
    NamedDevice{"tpu", 19},
    NamedDevice{"tpu_host", 20},
    NamedDevice{"ascend", 21},
};

const NamedDevice* row_of(std::int32_t type) noexcept {
  for (const NamedDevice& row : kNamedDevices) {
    if (row.type == type) {
      return &row;
    }
  }
  return nullptr;
}

}  // namespace

std::optional<StreamNumbers> fixed_stream_numbers(std::int32_t type) noexcept {
  const NamedDevice* row = row_of(type);
  return row == nullptr ? std::nullopt : row->streams;
}

std::string device_type_name(std::int32_t type) {
  const NamedDevice* row = row_of(type);
  return row == nullptr ? "device(" + std::to_string(type) + ")" : std::string(row->name);
}

std::string to_string(Device device) {
  const std::string name = device_type_name(device.type);
  return device == Device() ? name : name + ":" + std::to_string(device.id);
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
