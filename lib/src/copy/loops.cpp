#include "copy/loops.hpp"

#include <cstdlib>
#include <utility>

namespace dlbridge::detail {
namespace {

void add_loop(LoopNest& nest, Loop added) {
  if (added.extent == 0) {
    nest.empty = true;
  }
  if (added.extent <= 1 || nest.loops == LoopNest::kMaxLoops) {
    return;
  }
  if (added.target_stride < 0) {
    // Begin at the other end, on both sides.
    nest.source += (added.extent - 1) * added.source_stride;
    nest.target += (added.extent - 1) * added.target_stride;
    added.source_stride = -added.source_stride;
    added.target_stride = -added.target_stride;
  }
  nest.loop[static_cast<std::size_t>(nest.loops++)] = added;
}

bool outer_first(const Loop& a, const Loop& b) {
  return a.target_stride != b.target_stride ? a.target_stride > b.target_stride
                                            : std::abs(a.source_stride) > std::abs(b.source_stride);
}

void sort_loops(LoopNest& nest) {
  for (std::size_t i = 1; i < static_cast<std::size_t>(nest.loops); ++i) {
    for (std::size_t k = i; k > 0 && outer_first(nest.loop[k], nest.loop[k - 1]); --k) {
      std::swap(nest.loop[k], nest.loop[k - 1]);
    }
  }
}

// Neighbours that walk on where the inner one ends are one loop.
void merge_loops(LoopNest& nest) {
  if (nest.loops == 0) {
    return;
  }
  std::size_t last = 0;
  for (std::size_t i = 1; i < static_cast<std::size_t>(nest.loops); ++i) {
    Loop& outer = nest.loop[last];
    const Loop& inner = nest.loop[i];
    if (outer.source_stride == inner.extent * inner.source_stride &&
        outer.target_stride == inner.extent * inner.target_stride) {
      outer = Loop{outer.extent * inner.extent, inner.source_stride, inner.target_stride};
    } else {
      nest.loop[++last] = inner;
    }
  }
  nest.loops = static_cast<int>(last) + 1;
}

// A short row that lies packed on both sides, pixels of four bytes say, is a word itself.
void widen_words(LoopNest& nest, Recipe& recipe) {
  while (recipe.stages == 0 && nest.loops > 1) {
    const Loop& inner = nest.loop[static_cast<std::size_t>(nest.loops - 1)];
    const auto width = static_cast<std::int64_t>(recipe.source_width);
    const std::int64_t row = inner.extent * width;
    if (inner.source_stride != width || inner.target_stride != width || row > 16 ||
        (row & (row - 1)) != 0) {
      return;
    }
    recipe.source_width = recipe.target_width = static_cast<std::size_t>(row);
    --nest.loops;
  }
}

}  // namespace

void make_loop_nest(const CopyJob& job, Recipe& recipe, LoopNest& nest) noexcept {
  nest.source = static_cast<const std::byte*>(job.source) + recipe.source_offset;
  nest.target = static_cast<std::byte*>(job.target);
  for (std::int32_t i = 0; i < job.ndim; ++i) {
    if (job.shape[i] == 0) {
      nest.empty = true;  // known before a stride is followed: they may be anything
      return;
    }
  }
  for (std::int32_t i = 0; i < job.ndim; ++i) {
    add_loop(nest, {job.shape[i], job.source_strides_bytes[i], job.target_strides_bytes[i]});
  }
  for (std::size_t i = 0; i < recipe.inner_dims; ++i) {
    const InnerDim& dim = recipe.inner[i];
    add_loop(nest, {dim.extent, dim.source_stride, dim.target_stride});
  }
  sort_loops(nest);
  merge_loops(nest);
  widen_words(nest, recipe);
}

}  // namespace dlbridge::detail
