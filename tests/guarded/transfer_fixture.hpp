// What the tests of transfers share: a target that takes everything on the host, plans, and the
// values that came.
#pragma once

#include <chrono>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include "dlbridge/arriving_tensor.hpp"
#include "dlbridge/capabilities.hpp"
#include "dlbridge/carry.hpp"
#include "dlbridge/plan.hpp"
#include "guarded/guarded_fixture.hpp"

namespace dlbridge::guarded {

inline constexpr Library kSomebody{.name = "somebody", .object = "somebody.Tensor"};

inline constexpr Capabilities kOnHost{.name = "the host",
                                      .result = "host.Array",
                                      .devices = DeviceSet::host(),
                                      .wants_host = true,
                                      .dtypes = DTypeSet::everything()};
inline constexpr Capabilities kOnDevice{.name = "the device",
                                        .result = "device.Array",
                                        .devices = DeviceSet::of({kDLExtDev}),
                                        .own_device = kDLExtDev,
                                        .dtypes = DTypeSet::everything()};

/// What staging buffers hold (lib/src/device/staging.cpp): the borders that copies are tried
/// around.
inline constexpr std::int64_t kChunkBytes = std::int64_t{2} << 20;
inline constexpr std::int64_t kLeastChunkBytes = kChunkBytes / 4;
inline constexpr std::int64_t kSizes[] = {0,
                                          4,
                                          64,
                                          kLeastChunkBytes,
                                          kLeastChunkBytes + 4,
                                          kChunkBytes - 4,
                                          kChunkBytes,
                                          kChunkBytes + 4,
                                          2 * kChunkBytes,
                                          5 * kChunkBytes + 12};

class TransferTest : public GuardedTest {
 protected:
  static void describe(const DLTensor& tensor, Stream stream, Source& source) {
    source.traits.library = &kSomebody;
    source.tensor = tensor;
    source.stream = stream;
  }

  static Plan to_host(const Source& source, const Request& request = {}) {
    return plan(source, kOnHost, Policy::host(), request);
  }

  template <typename Value>
  static std::vector<Value> values_of(const ManagedTensor& tensor) {
    const auto* first = static_cast<const Value*>(tensor.data());
    return {first, first + element_count(tensor.tensor())};
  }

  /// A copy of host values on the device, by the plan; and back, past everything under test.
  template <typename Value>
  std::vector<Value> read_back(const ManagedTensor& tensor) {
    device.synchronise(tensor.device().id, device.own_stream(tensor.device().id));
    std::vector<Value> values(static_cast<std::size_t>(element_count(tensor.tensor())));
    if (!values.empty()) {
      device.load(values.data(), tensor.data(), values.size() * sizeof(Value));
    }
    return values;
  }

  /// Calls the action on another thread while `held` is, and lets the stream go only when
  /// the action has either ended, which it must not, or is waiting.
  template <typename Action>
  auto while_held(int id, Stream held, Action action) {
    device.hold(id, held);
    auto result = std::async(std::launch::async, action);
    EXPECT_EQ(result.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout)
        << "it did not wait for work that has not been done";
    device.let_go(id, held);
    return result.get();
  }

  Stream stream = device.make_stream(0);
};

}  // namespace dlbridge::guarded
