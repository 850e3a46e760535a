// What the tests of shared memory share: tensors in blocks, sockets, and children that end.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "dlbridge/memory_pool.hpp"
#include "dlbridge/shared_memory.hpp"

namespace dlbridge::doubles {

inline constexpr DType kFloat32{kDLFloat, 32};

/// `count` floats from `first` on, in a block.
inline ManagedTensor floats_in_block(std::int64_t count, float first = 0,
                                     SharedMode mode = SharedMode::kRead) {
  const std::int64_t shape[] = {count};
  ManagedTensor made = SharedArena(mode).allocate(kFloat32, shape);
  for (std::int64_t i = 0; i < count; ++i) {
    static_cast<float*>(made.data())[i] = first + static_cast<float>(i);
  }
  return made;
}

inline float at(const ManagedTensor& tensor, std::int64_t i) {
  return static_cast<const float*>(tensor.data())[i * tensor.strides()[0]];
}

inline Message packed(const ManagedTensor& tensor, SharedMode mode = SharedMode::kRead) {
  std::vector<ManagedTensor> one;
  one.push_back(tensor.share());
  return pack(one, mode);
}

/// The bytes of a tensor in one dimension as elements of four bits, of which each fills a byte, or
/// `flags` says no such thing.
inline ManagedTensor as_int4(const ManagedTensor& bytes, std::int64_t count,
                             std::uint64_t flags = DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) {
  DLTensor tensor = bytes.tensor();
  tensor.dtype = DType{kDLInt, 4}.dl();
  tensor.shape = &count;
  auto kept = std::make_shared<ManagedTensor>(bytes.share());
  return ManagedTensor::own(tensor, flags, Lease::calling([kept]() noexcept {}));
}

/// Packed and unpacked, as by another process.
inline Received passed(const ManagedTensor& tensor, SharedMode mode = SharedMode::kRead) {
  Message message = packed(tensor, mode);
  return unpack(message.bytes, std::move(message.descriptors));
}

struct Sockets {
  explicit Sockets(int type = SOCK_STREAM) {
    std::array<int, 2> both{};
    EXPECT_EQ(socketpair(AF_UNIX, type, 0, both.data()), 0);
    here = OwnedDescriptor(both[0]);
    there = OwnedDescriptor(both[1]);
  }
  OwnedDescriptor here;
  OwnedDescriptor there;
};

/// Runs `action` in a child, which ends with what it returns; the child's status.
template <typename Action>
int in_child(Action&& action) {
  const pid_t child = fork();
  if (child == 0) {
    _exit(action());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Every test begins and ends with no block at all.
class SharedMemory : public ::testing::Test {
 protected:
  void SetUp() override { release_pool(); }
  void TearDown() override {
    release_pool();
    EXPECT_EQ(mapped_blocks(), 0U);
    EXPECT_EQ(live_managed_tensors(), 0);
  }
};

}  // namespace dlbridge::doubles
