// Memory that ends: allocation N fails, for N = 1, 2, ... until the action comes through.
#pragma once

#include <gtest/gtest.h>

#include <new>
#include <string>

#include "dlbridge/error.hpp"
#include "lib/doubles.hpp"

namespace dlbridge::doubles {

/// While it lives, allocation `at` of this thread fails, counted from 1: of malloc,
/// aligned_alloc and mmap where our own code calls them, and of operator new wherever it is called.
class MemoryEnds {
 public:
  explicit MemoryEnds(long at) noexcept;
  ~MemoryEnds();
  MemoryEnds(const MemoryEnds&) = delete;
  MemoryEnds& operator=(const MemoryEnds&) = delete;
  [[nodiscard]] static bool has_ended() noexcept;
};

/// Runs `action`, with a fresh thing of `make` each time, while allocation 1, 2, ... fails, until
/// none does. Each failure has to be a std::bad_alloc (or, where the action is refused anyhow, the
/// refusal), and has to leave no managed tensor. `check` looks at what is left of the thing.
template <typename Make, typename Action, typename Check>
void run_out_of_memory(Make make, Action action, Check check) {
  bool ended = true;
  long at = 0;
  while (ended) {
    ++at;
    ASSERT_LT(at, 10000) << "it never comes through";
    SCOPED_TRACE("allocation " + std::to_string(at));
    const auto before = live_managed_tensors();
    {
      auto thing = make();
      std::string what;
      {
        const MemoryEnds memory(at);
        try {
          action(thing);
        } catch (const std::bad_alloc&) {
          what = "bad_alloc";
        } catch (const ConversionRefused&) {
          what = "refused";
        }
        ended = MemoryEnds::has_ended();
      }
      EXPECT_TRUE(ended || what != "bad_alloc");
      check(thing, what);
    }
    EXPECT_EQ(live_managed_tensors(), before);
  }
  EXPECT_GT(at, 1) << "nothing was allocated";
}

}  // namespace dlbridge::doubles
