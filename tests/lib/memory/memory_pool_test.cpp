// Memory of copies that ended, kept for the next.

#include "dlbridge/memory_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "dlbridge/managed_tensor.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace dlbridge {
namespace {

constexpr std::int64_t kMegabyte = 1 << 20;

ManagedTensor bytes(std::int64_t count) {
  return ManagedTensor::allocate({kDLUInt, 8}, {&count, 1});
}

void* address_of(std::int64_t count) {
  return bytes(count).data();  // the memory has been given back when this returns
}

class MemoryPool : public testing::Test {
 protected:
  void SetUp() override {
    before_ = set_pool_limit(64 * kMegabyte);
    release_pool();
  }
  void TearDown() override {
    release_pool();
    set_pool_limit(before_);
  }

 private:
  std::size_t before_ = 0;
};

TEST_F(MemoryPool, serves_the_next_copy_of_the_same_size) {
  for (const std::int64_t size : {kMegabyte, 3 * kMegabyte + 7, 8 * kMegabyte}) {
    release_pool();
    void* first = address_of(size);
    EXPECT_GE(pooled_bytes(), static_cast<std::size_t>(size));
    const ManagedTensor second = bytes(size);
    EXPECT_EQ(second.data(), first);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0U);
    EXPECT_EQ(pooled_bytes(), 0U);
    static_cast<std::uint8_t*>(second.data())[size - 1] = 1;  // the last one is there
  }
}

TEST_F(MemoryPool, does_not_serve_two_at_once) {
  (void)address_of(kMegabyte);
  const ManagedTensor one = bytes(kMegabyte);
  const ManagedTensor two = bytes(kMegabyte);
  EXPECT_NE(one.data(), two.data());
}

TEST_F(MemoryPool, keeps_nothing_small) {
  (void)address_of(kMegabyte - 1);
  (void)address_of(0);
  EXPECT_EQ(pooled_bytes(), 0U);
}

TEST_F(MemoryPool, wastes_no_more_than_a_fifth_of_a_piece) {
  void* piece = address_of(10 * kMegabyte);
  EXPECT_NE(bytes(7 * kMegabyte).data(), piece);
  release_pool();
  piece = address_of(10 * kMegabyte);
  EXPECT_EQ(bytes(8 * kMegabyte).data(), piece);
}

TEST_F(MemoryPool, takes_the_smallest_piece_that_fits) {
  ManagedTensor large = bytes(10 * kMegabyte);
  ManagedTensor fitting = bytes(8 * kMegabyte);
  void* address = fitting.data();
  fitting = ManagedTensor();
  large = ManagedTensor();
  EXPECT_EQ(bytes(8 * kMegabyte).data(), address);
}

TEST_F(MemoryPool, keeps_no_more_than_its_limit_and_the_newest_longest) {
  set_pool_limit(5 * kMegabyte);
  std::vector<ManagedTensor> tensors;
  for (int i = 0; i < 6; ++i) {
    tensors.push_back(bytes(kMegabyte + i * 64));
  }
  void* newest = tensors.back().data();
  for (ManagedTensor& tensor : tensors) {
    tensor = ManagedTensor();
    EXPECT_LE(pooled_bytes(), static_cast<std::size_t>(5 * kMegabyte));
  }
  EXPECT_GE(pooled_bytes(), static_cast<std::size_t>(4 * kMegabyte));
  EXPECT_EQ(bytes(kMegabyte + 5 * 64).data(), newest);
  const std::size_t before = pooled_bytes();
  (void)address_of(6 * kMegabyte);  // more than all that may be kept: nothing has to go for it
  EXPECT_EQ(pooled_bytes(), before);
}

TEST_F(MemoryPool, keeps_sixteen_pieces) {
  std::vector<ManagedTensor> tensors;
  for (int i = 0; i < 20; ++i) {
    tensors.push_back(bytes(kMegabyte));
  }
  tensors.clear();
  EXPECT_EQ(pooled_bytes(), static_cast<std::size_t>(16 * kMegabyte));
}

TEST_F(MemoryPool, gives_everything_back_when_asked) {
  (void)address_of(8 * kMegabyte);
  release_pool();
  EXPECT_EQ(pooled_bytes(), 0U);
  (void)address_of(8 * kMegabyte);
  EXPECT_GT(pooled_bytes(), 0U);
}

TEST_F(MemoryPool, is_switched_off_by_a_limit_of_zero) {
  (void)address_of(8 * kMegabyte);
  EXPECT_EQ(set_pool_limit(0), static_cast<std::size_t>(64 * kMegabyte));
  EXPECT_EQ(pooled_bytes(), 0U);
  (void)address_of(8 * kMegabyte);
  EXPECT_EQ(pooled_bytes(), 0U);
  EXPECT_EQ(pool_limit(), 0U);
}

TEST_F(MemoryPool, serves_threads_without_giving_one_piece_to_two) {
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (std::uint8_t mark = 1; mark <= 4; ++mark) {
    threads.emplace_back([mark, &wrong] {
      for (int i = 0; i < 200; ++i) {
        const std::int64_t size = kMegabyte + i % 3 * 4096;
        const ManagedTensor tensor = bytes(size);
        auto* data = static_cast<std::uint8_t*>(tensor.data());
        std::fill_n(data, 4096, mark);
        data[size - 1] = mark;
        std::this_thread::yield();
        const bool own = std::all_of(data, data + 4096, [&](auto byte) { return byte == mark; });
        wrong += !own || data[size - 1] != mark;
      }
    });
  }
  threads.emplace_back([] {
    for (int i = 0; i < 100; ++i) {
      release_pool();
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(pooled_bytes(), static_cast<std::size_t>(16 * 2 * kMegabyte));
  release_pool();
  EXPECT_EQ(pooled_bytes(), 0U);
}

#ifdef __SANITIZE_ADDRESS__
TEST_F(MemoryPool, hides_what_it_keeps_from_everyone) {
  const auto* data = static_cast<const std::uint8_t*>(address_of(8 * kMegabyte));
  EXPECT_NE(__asan_address_is_poisoned(data), 0);
  EXPECT_NE(__asan_address_is_poisoned(data + 8 * kMegabyte - 1), 0);
  const ManagedTensor again = bytes(8 * kMegabyte);
  ASSERT_EQ(again.data(), data);
  EXPECT_EQ(__asan_address_is_poisoned(data), 0);
}
#endif

}  // namespace
}  // namespace dlbridge
