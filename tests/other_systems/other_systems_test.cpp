// The core without what is Linux's own, as it is compiled for any other system: its files behind
// __linux__ are linked here without that word, and tests/lib's tests of memory and copies run on
// it.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <system_error>
#include <thread>

#include "dlbridge/shared_memory.hpp"
#include "dlbridge/threads.hpp"

namespace dlbridge {
namespace {

// What the call throws, as a condition; none where it does not.
template <typename Call>
std::errc refused(Call&& call) {
  try {
    call();
  } catch (const std::system_error& error) {
    return static_cast<std::errc>(error.code().value());
  }
  return {};
}

TEST(OtherSystems, share_no_memory_and_say_so) {
  const std::array<std::int64_t, 1> shape{4};
  const auto nowhere = std::errc::not_supported;
  EXPECT_EQ(refused([&] {
              (void)SharedArena(SharedMode::kRead).allocate({kDLInt, 8}, shape);
            }),
            nowhere);
  EXPECT_EQ(refused([] { send(-1, {}); }), nowhere);
  EXPECT_EQ(refused([] { (void)receive(-1); }), nowhere);
  const ManagedTensor tensor = ManagedTensor::allocate({kDLInt, 8}, shape);
  EXPECT_FALSE(is_in_block(tensor.tensor()));
  EXPECT_FALSE(can_share(tensor.tensor(), SharedMode::kRead));
  EXPECT_EQ(mapped_blocks(), 0U);
}

TEST(OtherSystems, copy_with_as_many_threads_as_the_machine_has_processors) {
  set_copy_threads(0);
  EXPECT_EQ(copy_threads(), std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

}  // namespace
}  // namespace dlbridge
