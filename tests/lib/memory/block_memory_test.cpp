// The count of living managed tensors is exact whatever threads they were made and ended on, and
// the memory of ended ones serves the next.

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

TEST(BlockMemory, adds_up_what_threads_made_and_others_ended) {
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

TEST(BlockMemory, is_right_while_many_threads_count) {
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
TEST(BlockMemory, counts_what_ends_while_a_thread_ends) {
  std::thread([] {
    thread_local EndsLate late;
    late.tensor = some();  // made after `late`, so what counts ends before it
  }).join();
  EXPECT_EQ(live_managed_tensors(), 0);
}

// Dimensions decide how large a block is; a larger one must not come out of a smaller one's memory.
TEST(BlockMemory, gives_blocks_of_any_size_room_of_their_own) {
  std::vector<ManagedTensor> alive;
  for (const std::size_t ndim : {1U, 64U, 8U, 9U, 64U, 0U, 12U, 11U}) {
    for (int round = 0; round < 40; ++round) {
      const std::vector<std::int64_t> shape(ndim, 1);
      ManagedTensor tensor = ManagedTensor::allocate(DType{kDLFloat, 32}, shape);
      if (round % 2 == 0) {
        alive.push_back(std::move(tensor));
      }
    }
  }
  for (const ManagedTensor& tensor : alive) {
    for (std::size_t i = 0; i < tensor.shape().size(); ++i) {
      EXPECT_EQ(tensor.shape()[i], 1);
      EXPECT_EQ(tensor.strides()[i], 1);
    }
  }
  alive.clear();
  EXPECT_EQ(live_managed_tensors(), 0);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
TEST(BlockMemory, serves_the_next_tensor_of_the_thread) {
  const DLManagedTensorVersioned* first = nullptr;
  {
    DLManagedTensorVersioned* managed = some().release();
    first = managed;
    managed->deleter(managed);
  }
  DLManagedTensorVersioned* second = some().release();
  EXPECT_EQ(second, first);
  second->deleter(second);
}
#endif

}  // namespace
}  // namespace dlbridge
