#pragma once

#include <cstddef>

#include "copy/planes.hpp"
#include "copy/recipe.hpp"

namespace dlbridge::detail {

/// The most that a tile with columns apart may hold, on the wider of its two sides. It is gathered
/// on the stack, and helpers have small ones on some systems.
inline constexpr std::size_t kTileBytes = 64 * 1024;

/// Packed elements through all stages, in blocks that stay in the first-level cache. False as of a
/// Kernel.
bool run_stages(const Recipe& recipe, std::byte* to, const std::byte* from, std::size_t count);

/// Copies a plane of at most kTileBytes: gathers what does not lie packed, runs the recipe's
/// stages, and puts the result in its place; past the cache only where target rows are packed.
/// False where a value did not fit the target's type.
bool copy_tile(const Plane& plane, const Recipe& recipe) noexcept;

}  // namespace dlbridge::detail
