#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "copy/recipe.hpp"
#include "dlbridge/copy.hpp"

namespace dlbridge::detail {

/// A loop of a copy: how often, and how far either side moves each time, in bytes.
struct Loop {
  std::int64_t extent;
  std::int64_t source_stride;
  std::int64_t target_stride;
};

/// The loops of a copy, outermost first, as few as do. The innermost takes the smallest steps in
/// the target, and no target stride is negative.
struct LoopNest {
  // Loops of one round are left out, and memory ends before 2^63 elements: there are never more.
  static constexpr int kMaxLoops = 64;

  int loops = 0;
  bool empty = false;
  // Left uninitialised: clearing it would cost more than a small copy.
  std::array<Loop, kMaxLoops> loop;  // NOLINT
  const std::byte* source = nullptr;
  std::byte* target = nullptr;
};

/// Fills `nest`. May widen the recipe's words, where whole rows of them are one wider word.
void make_loop_nest(const CopyJob& job, Recipe& recipe, LoopNest& nest) noexcept;

}  // namespace dlbridge::detail
