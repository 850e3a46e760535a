// The count of living managed tensors is exact whatever threads they were made and ended on.

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

ManagedTensor some() {
  const std::array<std::int64_t, 1> shape{4};
  return ManagedTensor::allocate(DType{kDLFloat, 32}, shape);
}

TEST(LiveCount, adds_up_what_threads_made_and_others_ended) {
  std::vector<ManagedTensor> made;
  for (int round = 0; round < 20; ++round) {
    std::thread([&] { made.push_back(some()); }).join();
  }
  EXPECT_EQ(live_managed_tensors(), 20);
  std::thread([&] { made.resize(5); }).join();
  EXPECT_EQ(live_managed_tensors(), 5);
  made.clear();
  EXPECT_EQ(live_managed_tensors(), 0);
}

TEST(LiveCount, is_right_while_many_threads_count) {
  constexpr int kThreads = 8;
  std::vector<std::thread> threads;
  std::array<std::vector<ManagedTensor>, kThreads> kept;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&mine = kept[static_cast<std::size_t>(i)]] {
      for (int j = 0; j < 500; ++j) {
        mine.push_back(some());
        if (j % 2 == 1) {
          mine.pop_back();
        }
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(live_managed_tensors(), kThreads * 250);
  for (auto& mine : kept) {
    mine.clear();
  }
  EXPECT_EQ(live_managed_tensors(), 0);
}

struct EndsLate {
  ManagedTensor tensor;
};

// Thread-local objects of others may end tensors after the count's own have gone.
TEST(LiveCount, counts_what_ends_while_a_thread_ends) {
  std::thread([] {
    thread_local EndsLate late;
    late.tensor = some();  // made after `late`, so what counts ends before it
  }).join();
  EXPECT_EQ(live_managed_tensors(), 0);
}

}  // namespace
}  // namespace dlbridge
