// The C++ way through, convert() and to_managed(), with memory that is on a device.

#include <gmock/gmock.h>

#include <chrono>
#include <future>
#include <thread>

#include "dlbridge/convert.hpp"
#include "dlbridge/streams.hpp"
#include "guarded/guarded_fixture.hpp"

namespace dlbridge::guarded {
namespace {

using ::testing::ElementsAreArray;

constexpr Library kLibrary{.name = "there", .object = "there.Tensor"};

/// An object of a library whose work is on one of its own streams.
struct There {
  OnDevice* memory;
  Stream stream;
};

struct ThereBridge {
  using Object = There;
  static void describe(const There& object, Source& source) {
    source.traits.library = &kLibrary;
    source.tensor = object.memory->tensor();
    source.stream = object.stream;
  }
  static ManagedTensor acquire(const There&, const Source& source) {
    return ManagedTensor::own_trusted(source.tensor, 0, {});
  }
};

constexpr Capabilities kHost{
    .name = "the host",
    .result = "array",
    .devices = DeviceSet::host(),
    .wants_host = true,
    .dtypes = DTypeSet::everything(),
};

constexpr Capabilities kThere{
    .name = "the device",
    .result = "device.Array",
    .devices = DeviceSet::of({kDLExtDev}),
    .dtypes = DTypeSet::everything(),
};

class ConvertTest : public GuardedTest {};

TEST_F(ConvertTest, brings_memory_to_the_host_after_its_producers_work) {
  OnDevice memory(device, {20, 30});
  const Stream stream = device.make_stream(0);
  device.delay(1, 2000);
  memory.store_later(stream);
  const ManagedTensor copy = to_managed<ThereBridge>({&memory, stream}, kHost);
  ASSERT_TRUE(copy.device().host_accessible());
  const auto* first = static_cast<const float*>(copy.data());
  EXPECT_THAT(std::vector<float>(first, first + 600), ElementsAreArray(memory.values()));
  device.delay(0, 0);
}

TEST_F(ConvertTest, orders_a_view_on_the_stream_of_managed_tensors) {
  OnDevice memory(device, {20, 30});
  const Stream stream = device.make_stream(0);
  device.hold(0, stream);
  memory.store_later(stream);
  {
    const ManagedTensor view =
        to_managed<ThereBridge>({&memory, stream}, managed_tensor_capabilities());
    EXPECT_EQ(view.data(), memory.memory());
    EXPECT_EQ(device.pending(0, stream), 2) << "the work, and the event after it";
    EXPECT_EQ(device.pending(0, managed_stream(view.device())), 1) << "it waits for the event";
    device.let_go(0, stream);
    Source source;
    describe(view, kLibrary, source);
    source.stream = managed_stream(view.device());
    const Plan decided = plan(source, kHost, Policy::host());
    EXPECT_EQ(decided.legs().back().who, Who::kRuntime);
    const ManagedTensor copy = carry_out(decided, source);
    const auto* first = static_cast<const float*>(copy.data());
    EXPECT_THAT(std::vector<float>(first, first + 600), ElementsAreArray(memory.values()));
  }
  release_pinned_memory(device);
}

// What the caller has dropped is read by a copy that is only begun, and may then be given back by
// what uses the device, which a thread of its runtime must not.
TEST_F(ConvertTest, keeps_what_is_copied_on_the_device_until_that_is_done) {
  OnDevice memory(device, {20, 30});
  const Stream own = device.own_stream(0);
  static std::promise<std::thread::id> ended;
  ended = {};
  std::future<std::thread::id> end = ended.get_future();
  device.hold(0, own);
  const ManagedTensor copy = to_managed<DLPack>(
      ManagedTensor::own(
          memory.tensor(), 0,
          {&ended, [](void*) noexcept { ended.set_value(std::this_thread::get_id()); }}),
      kThere, Policy::snapshot());
  EXPECT_NE(copy.data(), memory.memory());
  EXPECT_EQ(end.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  std::promise<std::thread::id> worked;
  device.call_when_done(
      0, own,
      [](void* context) {
        static_cast<std::promise<std::thread::id>*>(context)->set_value(std::this_thread::get_id());
      },
      &worked);
  device.let_go(0, own);
  EXPECT_NE(end.get(), worked.get_future().get()) << "it ended on the runtime's thread";
  std::vector<float> values(600);
  device.settle();
  device.load(values.data(), copy.data(), values.size() * sizeof(float));
  EXPECT_THAT(values, ElementsAreArray(memory.values()));
}

TEST_F(ConvertTest, refuses_where_the_policy_forbids_to_leave_the_device) {
  OnDevice memory(device, {2});
  EXPECT_THROW((void)to_managed<ThereBridge>({&memory, {}}, kHost, Policy::strict()),
               ConversionRefused);
  EXPECT_THROW((void)to_managed<ThereBridge>({&memory, {}}, kHost, Policy::zero_copy()),
               ConversionRefused);
}

TEST_F(ConvertTest, refuses_without_a_runtime_and_says_so) {
  OnDevice memory(device, {2});
  set_device_runtime(kDLExtDev, nullptr);
  try {
    (void)to_managed<ThereBridge>({&memory, {}}, kHost);
    ADD_FAILURE() << "it was not refused";
  } catch (const ConversionRefused& refused) {
    EXPECT_STREQ(
        refused.what(),
        "cannot view a there.Tensor on ext_dev:0 as the host (nothing here can bring it to "
        "cpu: there is no runtime for ext_dev devices, and its library does not copy to "
        "the host when asked)");
  }
}

}  // namespace
}  // namespace dlbridge::guarded
