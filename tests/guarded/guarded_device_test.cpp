// The guarded device itself: what it promises to the tests that are built on it.
#include "guarded/guarded_device.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "guarded/guarded_fixture.hpp"

namespace dlbridge::guarded {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Pinned memory of four numbers.
struct Pinned {
  explicit Pinned(GuardedDevice& device_) : device(device_) {
    values = static_cast<int*>(device.allocate_host(4 * sizeof(int)));
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() { device.free_host(values); }
  [[nodiscard]] std::vector<int> list() const { return {values, values + 4}; }

  GuardedDevice& device;
  int* values = nullptr;
};

class guarded_device : public ::testing::Test {
 protected:
  guarded_device() { device.store(memory, source.data(), bytes); }
  ~guarded_device() override { device.unmake(memory); }

  std::vector<int> on_device() {
    std::vector<int> values(4);
    device.load(values.data(), memory, bytes);
    return values;
  }

  GuardedDevice device;
  const std::size_t bytes = 4 * sizeof(int);
  const std::vector<int> source = {1, 2, 3, 4};
  void* memory = device.make(0, bytes);
  Stream stream = device.make_stream(0);
};

using guarded_device_death = guarded_device;

TEST_F(guarded_device_death, its_memory_faults_when_the_host_reads_it) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH({ (void)*static_cast<volatile int*>(memory); }, "");
}

TEST_F(guarded_device_death, its_memory_faults_when_the_host_writes_it_while_a_copy_runs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        std::atomic<bool> running = false;
        device.enqueue(0, stream, [&] {
          running = true;
          std::this_thread::sleep_for(std::chrono::seconds(20));
        });
        while (!running) {
        }
        *static_cast<volatile int*>(memory) = 1;
      },
      "");
}

TEST_F(guarded_device, a_copy_happens_when_its_turn_comes) {
  const Pinned pinned(device);
  std::memset(pinned.values, 0, bytes);
  device.hold(0, stream);
  device.copy(0, pinned.values, memory, bytes, stream);
  const Event event = device.record(0, stream);
  EXPECT_FALSE(device.has_come(event));
  EXPECT_THAT(pinned.list(), ElementsAre(0, 0, 0, 0));
  device.let_go(0, stream);
  device.synchronise(event);
  EXPECT_THAT(pinned.list(), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(device.has_come(event));
  device.release(event);
  EXPECT_EQ(device.counts().to_host, 16);
  EXPECT_EQ(device.counts().events, 0);
}

TEST_F(guarded_device, pinned_memory_is_read_late_and_pageable_memory_at_once) {
  const Pinned pinned(device);
  std::memcpy(pinned.values, source.data(), bytes);
  std::vector<int> pageable = source;
  device.hold(0, stream);
  device.copy(0, memory, pinned.values, bytes, stream);
  pinned.values[0] = 9;
  device.let_go(0, stream);
  device.synchronise(0, stream);
  EXPECT_THAT(on_device(), ElementsAre(9, 2, 3, 4));
  device.hold(0, stream);
  device.copy(0, memory, pageable.data(), bytes, stream);
  pageable[0] = 9;
  device.let_go(0, stream);
  device.synchronise(0, stream);
  EXPECT_THAT(on_device(), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(device.counts().pageable_copies, 1);
}

TEST_F(guarded_device, streams_do_not_wait_for_each_other_by_themselves) {
  const Pinned pinned(device);
  device.hold(0, {});
  device.store_later(0, memory, std::vector<std::byte>(bytes), {});
  device.copy(0, pinned.values, memory, bytes, stream);
  device.synchronise(0, stream);
  EXPECT_THAT(pinned.list(), ElementsAre(1, 2, 3, 4));
  const Event written = device.record(0, {});
  device.wait(0, stream, written);
  device.release(written);
  device.copy(0, pinned.values, memory, bytes, stream);
  device.let_go(0, {});
  device.synchronise(0, stream);
  EXPECT_THAT(pinned.list(), ElementsAre(0, 0, 0, 0));
}

TEST_F(guarded_device, a_held_stream_can_be_stepped) {
  std::vector<int> done;
  const Stream other = device.make_stream(0);
  device.hold(0, stream);
  device.hold(0, other);
  const Event event = device.record(0, other);
  device.enqueue(0, stream, [&] { done.push_back(1); });
  device.wait(0, stream, event);
  device.enqueue(0, stream, [&] { done.push_back(2); });
  EXPECT_EQ(device.pending(0, stream), 3);
  EXPECT_TRUE(device.run_one(0, stream));
  EXPECT_THAT(done, ElementsAre(1));
  EXPECT_FALSE(device.run_one(0, stream));  // it waits for the other
  EXPECT_TRUE(device.run_one(0, other));
  EXPECT_TRUE(device.run_one(0, stream));
  EXPECT_TRUE(device.run_one(0, stream));
  EXPECT_THAT(done, ElementsAre(1, 2));
  EXPECT_FALSE(device.run_one(0, stream));
  device.release(event);
}

TEST_F(guarded_device, freed_memory_is_poison_in_stream_order) {
  const Pinned pinned(device);
  void* more = device.allocate(0, bytes, stream);
  device.hold(0, stream);
  device.copy(0, more, memory, bytes, stream);
  device.copy(0, pinned.values, more, bytes, stream);
  device.free(0, more, stream);
  EXPECT_EQ(device.counts().allocations, 1);  // the test's own
  device.let_go(0, stream);
  device.synchronise(0, stream);
  EXPECT_THAT(pinned.list(), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(device.faults(), IsEmpty());
}

TEST_F(guarded_device, work_that_comes_late_to_freed_memory_is_a_fault) {
  const Pinned pinned(device);
  std::memset(pinned.values, 0, bytes);
  void* more = device.allocate(0, bytes, {});
  device.hold(0, stream);
  device.copy(0, pinned.values, more, bytes, stream);
  device.free(0, more, {});
  device.synchronise(0, {});
  device.let_go(0, stream);
  EXPECT_THROW(device.synchronise(0, stream), DeviceError);
  EXPECT_THAT(device.faults(), ElementsAre(HasSubstr("work came late")));
  EXPECT_THROW(device.copy(0, pinned.values, more, bytes, {}), DeviceError);
  EXPECT_THAT(device.faults(), ElementsAre(HasSubstr("a copy was begun")));
  device.free(0, more, {});
  EXPECT_THAT(device.faults(), ElementsAre(HasSubstr("freed before")));
}

TEST_F(guarded_device, it_knows_whose_an_address_is) {
  const Pinned pinned(device);
  void* other = device.make(1, bytes);
  int plain = 0;
  EXPECT_EQ(device.locate(memory), Device(kDLExtDev, 0));
  EXPECT_EQ(device.locate(static_cast<std::byte*>(other) + 3), Device(kDLExtDev, 1));
  EXPECT_EQ(device.locate(pinned.values), Device(kDLCUDAHost, 0));
  EXPECT_EQ(device.locate(&plain), std::nullopt);
  EXPECT_EQ(device.locate(nullptr), std::nullopt);
  EXPECT_THROW(device.copy(0, pinned.values, other, bytes, stream), DeviceError);
  EXPECT_THROW(device.copy(1, pinned.values, other, bytes, stream), DeviceError);
  EXPECT_THROW(device.copy(2, pinned.values, other, bytes, {}), DeviceError);
  EXPECT_THROW(device.copy(0, pinned.values, memory, bytes + 1, stream), DeviceError);
  device.unmake(other);
  EXPECT_EQ(device.locate(other), std::nullopt);
}

TEST_F(guarded_device, rows_and_elements_are_copied_in_one_pass) {
  const Pinned pinned(device);
  std::memset(pinned.values, 0, bytes);
  // Of the rows (1, 2) and (3, 4) the first number each.
  device.copy_rows(0, pinned.values, 4, memory, 8, 4, 2, stream);
  device.synchronise(0, stream);
  EXPECT_THAT(pinned.list(), ElementsAre(1, 3, 0, 0));
  EXPECT_EQ(device.counts().to_host, 8);
  void* turned = device.make(0, bytes);
  CopyJob job;
  {
    const std::int64_t shape[] = {4};
    const std::int64_t back[] = {-4};
    const std::int64_t forth[] = {4};
    job = {1,           shape, static_cast<int*>(memory) + 3, back, turned, forth, {kDLInt, 32},
           {kDLInt, 32}};
    device.hold(0, stream);
    device.copy_elements(0, job, stream);
  }
  device.let_go(0, stream);
  device.synchronise(0, stream);
  std::vector<int> values(4);
  device.load(values.data(), turned, bytes);
  EXPECT_THAT(values, ElementsAre(4, 3, 2, 1));
  EXPECT_EQ(device.counts().kernels, 1);
  device.unmake(turned);
}

TEST_F(guarded_device, a_capture_records_and_is_broken_by_what_cannot_be_recorded) {
  const Pinned pinned(device);
  std::memset(pinned.values, 0, bytes);
  const Event before = device.record(0, {});
  device.begin_capture(0, stream);
  EXPECT_TRUE(device.is_capturing(0, stream));
  EXPECT_FALSE(device.is_capturing(0, {}));
  device.copy(0, pinned.values, memory, bytes, stream);
  EXPECT_TRUE(device.end_capture(0, stream));
  device.synchronise(0, stream);
  EXPECT_THAT(pinned.list(), ElementsAre(0, 0, 0, 0));  // recorded, not done

  device.begin_capture(0, stream);
  EXPECT_THROW(device.synchronise(0, stream), DeviceError);
  EXPECT_FALSE(device.end_capture(0, stream));

  device.begin_capture(0, stream);
  EXPECT_THROW(device.wait(0, stream, before), DeviceError);
  EXPECT_FALSE(device.end_capture(0, stream));

  device.begin_capture(0, stream);
  const Event inside = device.record(0, stream);
  device.wait(0, {}, inside);
  EXPECT_TRUE(device.is_capturing(0, {}));  // it has joined
  EXPECT_THROW((void)device.has_come(inside), DeviceError);
  EXPECT_FALSE(device.end_capture(0, stream));
  EXPECT_FALSE(device.end_capture(0, {}));
  device.release(inside);
  device.release(before);
}

TEST_F(guarded_device, calls_fail_when_told_to) {
  device.fail(Call::kRecord, 2);
  device.release(device.record(0, stream));
  EXPECT_THROW((void)device.record(0, stream), DeviceError);
  EXPECT_TRUE(device.has_failed());
  device.release(device.record(0, stream));
  device.fail(std::nullopt, 1, Failure::kOutOfMemory);
  EXPECT_THROW((void)device.locate(memory), std::bad_alloc);
  EXPECT_EQ(device.calls(Call::kRecord), 3);
  device.unplug(true);
  EXPECT_EQ(device.device_count(), 0);
  EXPECT_THAT(device.unavailable(), HasSubstr("gone"));
  EXPECT_THROW((void)device.allocate(0, 1, {}), DeviceError);
  device.unplug(false);
  EXPECT_EQ(device.device_count(), 2);
}

TEST_F(guarded_device, an_event_says_what_the_work_before_it_failed_with) {
  device.fail_work(0, stream, "the kernel failed");
  const Event event = device.record(0, stream);
  EXPECT_THROW(device.synchronise(event), DeviceError);
  EXPECT_THROW((void)device.has_come(event), DeviceError);
  device.release(event);
  device.settle();
  EXPECT_NO_THROW(device.synchronise(0, stream));
}

TEST_F(guarded_device, an_action_is_called_when_the_work_before_it_is_done) {
  std::atomic<int> called = 0;
  device.hold(0, stream);
  device.call_when_done(
      0, stream, [](void* context) { ++*static_cast<std::atomic<int>*>(context); }, &called);
  EXPECT_EQ(called, 0);
  device.let_go(0, stream);
  device.synchronise(0, stream);
  EXPECT_EQ(called, 1);
}

TEST_F(guarded_device, random_delays_keep_the_order_of_a_stream) {
  device.delay(7, 300);
  std::vector<int> done;
  for (int i = 0; i < 20; ++i) {
    device.enqueue(0, stream, [&done, i] { done.push_back(i); });
  }
  device.synchronise(0, stream);
  ASSERT_EQ(done.size(), 20U);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(guarded_device, is_registered_for_all_that_it_serves) {
  set_device_runtime(device);
  for (std::int32_t type = 0; type < 32; ++type) {
    const bool serves = type == kDLExtDev || type == kDLCUDAHost || type == kDLCUDAManaged;
    EXPECT_EQ(device.types().contains(type), serves) << type;
    EXPECT_EQ(device_runtime(type), serves ? &device : nullptr) << type;
  }
  for (const std::int32_t type : {kDLExtDev, kDLCUDAHost, kDLCUDAManaged}) {
    set_device_runtime(type, nullptr);
  }
}

TEST_F(guarded_device, numbers_streams_where_dlpack_does_not) {
  set_device_runtime(kDLExtDev, &device);
  ASSERT_TRUE(stream_numbers(kDLExtDev).has_value());
  EXPECT_EQ(stream_numbers(kDLExtDev)->number_of(Stream{}), 1U);
  EXPECT_EQ(stream_numbers(kDLExtDev)->stream_of(0), Stream{});
  set_device_runtime(kDLCUDAHost, &device);
  EXPECT_EQ(stream_numbers(kDLCUDAHost), std::nullopt) << "host memory has no streams";
  set_device_runtime(kDLCUDAHost, nullptr);
  set_device_runtime(kDLExtDev, nullptr);
  EXPECT_EQ(stream_numbers(kDLExtDev), std::nullopt) << "there is no runtime";
  EXPECT_EQ(stream_numbers(kDLROCM)->number_of(Stream{}), 0U) << "DLPack says so";
}

TEST_F(guarded_device, a_forked_process_can_not_use_it) {
  const pid_t child = fork();
  if (child == 0) {
    bool refused = false;
    try {
      (void)device.record(0, stream);
    } catch (const DeviceError&) {
      refused = true;
    }
    _exit(refused && device.device_count() == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace dlbridge::guarded
