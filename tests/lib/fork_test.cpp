// A process that forks while other threads work: the child owns what its parent owned, and nothing
// in it waits for a thread that did not come along.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "dlbridge/copy.hpp"
#include "dlbridge/threads.hpp"
#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using doubles::Versioned;

// Enough for a helper of its own, and then some.
constexpr std::int64_t kElements = std::int64_t{3} << 20;

ManagedTensor copied(const ManagedTensor& source) {
  ManagedTensor target = ManagedTensor::allocate(source.dtype(), source.shape());
  const std::int64_t bytes[] = {source.dtype().itemsize()};
  CopyJob job;
  job.ndim = 1;
  job.shape = source.shape().data();
  job.source = source.data();
  job.target = target.data();
  job.source_strides_bytes = job.target_strides_bytes = bytes;
  job.source_dtype = job.target_dtype = source.dtype();
  copy_elements(job);
  return target;
}

bool same_bytes(const ManagedTensor& a, const ManagedTensor& b) {
  return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(byte_count(a.tensor()))) == 0;
}

// What the child does with what it was born with; 0 where all went well.
int live_on(ManagedTensor tensor, std::vector<ManagedTensor> shares, const Versioned& producer) {
  if (!same_bytes(copied(tensor), tensor)) {
    return 1;
  }
  std::thread([moved = std::move(shares)]() mutable { moved.clear(); }).join();
  tensor = ManagedTensor();
  return producer.deleted() == 1 ? 0 : 2;
}

int exit_of(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Fork, while_others_copy_and_release_leaves_the_child_whole) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer's own allocator does not survive a fork beside other threads";
#elif defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer cannot follow threads that such a child starts";
#endif
  set_copy_threads(3);
  const std::array<std::int64_t, 1> shape{kElements};
  ManagedTensor large = ManagedTensor::allocate({kDLInt, 64}, shape);
  std::memset(large.data(), 0x37, static_cast<std::size_t>(byte_count(large.tensor())));
  std::atomic<bool> ends = false;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    while (!ends) {
      EXPECT_TRUE(same_bytes(copied(large), large));
    }
  });
  threads.emplace_back([&] {
    while (!ends) {
      std::thread([share = large.share()] { EXPECT_TRUE(share); }).join();  // a count of its own
    }
  });
  for (int round = 0; round < 20; ++round) {
    Versioned producer({6});
    ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
    std::vector<ManagedTensor> shares;
    shares.push_back(tensor.share());
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      const bool whole = same_bytes(copied(large), large);
      _exit(whole ? live_on(std::move(tensor), std::move(shares), producer) : 3);
    }
    EXPECT_EQ(exit_of(child), 0);
    EXPECT_EQ(producer.deleted(), 0) << "the child's releases are the child's";
  }
  ends = true;
  for (auto& thread : threads) {
    thread.join();
  }
  set_copy_threads(0);
}

}  // namespace
}  // namespace dlbridge
