#pragma once

#include <cstddef>

#include "copy/planes.hpp"
#include "copy/recipe.hpp"

namespace dlbridge::detail {

/// The most that a tile with columns apart may hold, on the wider of its two sides. It is gathered
/// on the stack, and helpers have small ones on some systems.
inline constexpr std::size_t kTileBytes = 64 * 1024;

/// Copies a plane of at most kTileBytes: gathers what does not lie packed, runs the recipe's
/// stages, and puts the result in its place. `stream` is for packed target rows: past the cache.
void copy_tile(Plane plane, const Recipe& recipe, bool stream) noexcept;

}  // namespace dlbridge::detail
