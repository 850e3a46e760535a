// Every call of the runtime fails once, at every point of every kind of crossing. What was asked
// for throws, nothing is left on the device, and the next crossing works.
#include <gmock/gmock.h>

#include <functional>
#include <numeric>

#include "guarded/transfer_fixture.hpp"

namespace dlbridge::guarded {
namespace {

struct Crossing {
  const char* name;
  // Crosses, and says whether the right values came.
  std::function<bool(GuardedDevice& device)> cross;
};

Source& described(Source& source, const DLTensor& tensor) {
  source.traits.library = &kSomebody;
  source.tensor = tensor;
  return source;
}

bool to_host(GuardedDevice& device, std::int64_t count, std::int64_t step, bool late) {
  OnDevice memory(device, {count * step});
  DLTensor tensor = memory.tensor();
  tensor.shape = &count;
  tensor.strides = &step;
  Source source;
  described(source, tensor);
  const Plan decided = plan(source, kOnHost, Policy::host());
  ManagedTensor copy;
  if (late) {
    int released = 0;
    ManagedTensor owner = ManagedTensor::own(
        tensor, 0, {&released, [](void* times) noexcept { ++*static_cast<int*>(times); }});
    struct Check {
      int& released;
      ~Check() { EXPECT_EQ(released, 1) << "the deleter runs once, whatever happens"; }
    } const check{released};
    copy = begin_to_host(decided, source, std::move(owner)).take();
  } else {
    copy = carry_out(decided, source);
  }
  const auto* values = static_cast<const float*>(copy.data());
  for (std::int64_t i = 0; i < count; i += 997) {
    if (values[i] != static_cast<float>(i * step)) {
      return false;
    }
  }
  return true;
}

bool to_device(GuardedDevice& device, std::int64_t count, std::int64_t step) {
  std::vector<float> memory(static_cast<std::size_t>(count * step));
  std::iota(memory.begin(), memory.end(), 0.0F);
  DLTensor tensor{};
  tensor.data = memory.data();
  tensor.device = Device{}.dl();
  tensor.ndim = 1;
  tensor.dtype = DType{kDLFloat, 32}.dl();
  tensor.shape = &count;
  tensor.strides = &step;
  Source source;
  described(source, tensor);
  const ManagedTensor copy = carry_out(plan(source, kOnDevice, Policy::host()), source);
  std::vector<float> values(static_cast<std::size_t>(count));
  device.settle();  // past the runtime's own calls
  device.load(values.data(), copy.data(), values.size() * sizeof(float));
  for (std::size_t i = 0; i < values.size(); i += 997) {
    if (values[i] != memory[i * static_cast<std::size_t>(step)]) {
      return false;
    }
  }
  return true;
}

bool within(GuardedDevice& device) {
  OnDevice memory(device, {100});
  Source source;
  described(source, memory.tensor());
  source.stream = device.make_stream(0);
  const ManagedTensor copy = carry_out(plan(source, kOnDevice, Policy::snapshot()), source);
  std::vector<float> values(100);
  device.settle();
  device.load(values.data(), copy.data(), 400);
  return values == memory.values();
}

const std::int64_t kMany = 3 * kChunkBytes / 4 + 5;  // elements, over several chunks

const std::vector<Crossing> kCrossings = {
    {"to the host", [](auto& device) { return to_host(device, 100, 1, false); }},
    {"strided, to the host", [](auto& device) { return to_host(device, 100, 3, false); }},
    {"in chunks to the host", [](auto& device) { return to_host(device, kMany, 1, false); }},
    {"strided, in chunks to the host",
     [](auto& device) { return to_host(device, kMany, 2, false); }},
    {"begun to the host", [](auto& device) { return to_host(device, 100, 1, true); }},
    {"strided, begun to the host", [](auto& device) { return to_host(device, kMany, 2, true); }},
    {"to the device", [](auto& device) { return to_device(device, 100, 1); }},
    {"strided, to the device", [](auto& device) { return to_device(device, 100, 3); }},
    {"in chunks to the device", [](auto& device) { return to_device(device, kMany, 1); }},
    {"within the device", [](auto& device) { return within(device); }},
};

class failures : public GuardedTest, public ::testing::WithParamInterface<Failure> {};

TEST_P(failures, of_every_call_leave_nothing_behind) {
  for (const Crossing& crossing : kCrossings) {
    int nth = 1;
    for (; nth < 200 && !HasFailure(); ++nth) {
      SCOPED_TRACE(std::string(crossing.name) + ", call " + std::to_string(nth));
      release_pinned_memory(device);  // so that it is asked for again
      const Counts before = device.counts();
      device.delay(static_cast<std::uint32_t>(nth), 200);
      device.fail(std::nullopt, nth, GetParam());
      bool threw = false;
      try {
        EXPECT_TRUE(crossing.cross(device)) << "wrong values";
      } catch (const DeviceError&) {
        threw = GetParam() == Failure::kDeviceError;
      } catch (const std::bad_alloc&) {
        threw = GetParam() == Failure::kOutOfMemory;
      }
      const bool failed = device.has_failed();
      device.settle();
      release_pinned_memory(device);
      const Counts after = device.counts();
      EXPECT_EQ(after.allocations, before.allocations);
      EXPECT_EQ(after.pinned, before.pinned);
      EXPECT_EQ(after.events, before.events);
      EXPECT_EQ(live_managed_tensors(), 0);
      for (const std::string& fault : device.faults()) {
        ADD_FAILURE() << fault;
      }
      EXPECT_TRUE(to_host(device, 100, 3, false)) << "the next crossing";
      if (!failed) {
        break;
      }
      EXPECT_TRUE(threw) << "a failure went by unseen";
    }
    EXPECT_TRUE(nth > 3 && nth < 200) << crossing.name << ": " << nth << " calls";
  }
}

using half_way = TransferTest;

// Strided, into pinned memory: a kernel and a copy over the bus for each slice, no wait between.
TEST_F(half_way, a_failure_is_told_once_the_device_writes_to_the_target_no_more) {
  const std::int64_t step = 3;
  OnDevice memory(device, {kMany * step});
  DLTensor tensor = memory.tensor();
  tensor.shape = const_cast<std::int64_t*>(&kMany);
  tensor.strides = const_cast<std::int64_t*>(&step);
  Source source;
  describe(tensor, stream, source);
  const ManagedTensor target = allocate_pinned(device, {kDLFloat, 32}, {{kMany}});
  const Stream own = device.own_stream(0);
  int failures = 0;
  for (int nth = 1; nth < 100; ++nth) {
    device.delay(static_cast<std::uint32_t>(nth), 2000);
    device.fail(std::nullopt, nth);
    try {
      carry_out_into(to_host(source), source, target.tensor());
    } catch (const DeviceError&) {
      ++failures;
      EXPECT_EQ(device.pending(0, stream) + device.pending(0, own), 0) << "call " << nth;
    }
    const bool came_through = !device.has_failed();
    device.settle();
    if (came_through) {
      break;
    }
  }
  EXPECT_GT(failures, 5);
}

INSTANTIATE_TEST_SUITE_P(as, failures,
                         ::testing::Values(Failure::kDeviceError, Failure::kOutOfMemory));

}  // namespace
}  // namespace dlbridge::guarded
