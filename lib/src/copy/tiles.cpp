#include "copy/tiles.hpp"

#include <algorithm>

#include "copy/streaming.hpp"

namespace dlbridge::detail {
namespace {

// What the stages make stays in the first-level cache.
constexpr std::size_t kRunBytes = 8 * 1024;
// Elements of a row from which on calling the stages row by row costs less than packing the rows.
constexpr std::int64_t kLongRow = 64;
// Rows that lie a multiple of this apart fall on so few sets of the first-level cache that a tile's
// rows push one another out: four sets at most, of eight lines in most processors.
constexpr std::int64_t kCrowded = 1024;
constexpr std::int64_t kLinesOfSet = 8;

}  // namespace

bool run_stages(const Recipe& recipe, std::byte* to, const std::byte* from, std::size_t count) {
  if (recipe.stages == 1) {
    return recipe.stage[0].run(to, from, count * recipe.stage[0].items);
  }
  constexpr std::size_t kBlock = 256;
  alignas(64) std::byte buffer[2][kBlock * 16];
  bool fits = true;
  for (std::size_t done = 0; done < count; done += kBlock) {
    const std::size_t block = std::min(kBlock, count - done);
    const std::byte* in = from + done * recipe.source_width;
    for (std::size_t i = 0; i < recipe.stages; ++i) {
      const Stage& stage = recipe.stage[i];
      std::byte* out = i + 1 == recipe.stages ? to + done * recipe.target_width : buffer[i % 2];
      fits &= stage.run(out, in, block * stage.items);
      in = out;
    }
  }
  return fits;
}

namespace {

// Room for a tile and for the gaps between its rows.
struct alignas(64) TileBuffer {
  std::byte bytes[kTileBytes + kTileBytes / 8];
};

// Long rows get a gap of a cache line: columns then do not fall on a few sets of the cache.
std::int64_t pitch_of(std::int64_t row_bytes) {
  return row_bytes >= 512 ? row_bytes + 64 : row_bytes;
}

// The same place for all of a plane's source, packed in `buffer`.
void gather(Plane& plane, std::size_t width, TileBuffer& buffer) {
  const auto word = static_cast<std::int64_t>(width);
  Plane in = plane;
  in.stream = false;
  in.target = buffer.bytes;
  in.target_row = pitch_of(plane.columns * word);
  in.target_column = word;
  copy_plane(in, width);
  plane.source = in.target;
  plane.source_row = in.target_row;
  plane.source_column = word;
}

// To its place; past the cache if that pays.
void deliver(const Plane& plane, std::size_t width) {
  const auto word = static_cast<std::int64_t>(width);
  const std::int64_t row = plane.columns * word;
  const bool packed = plane.source_column == word && plane.target_column == word;
  if (!plane.stream || !packed) {
    copy_plane(plane, width);
  } else if (plane.source_row == row && plane.target_row == row) {
    stream_bytes(plane.target, plane.source, static_cast<std::size_t>(plane.rows * row));
  } else {
    for (std::int64_t r = 0; r < plane.rows; ++r) {
      stream_bytes(plane.target + r * plane.target_row, plane.source + r * plane.source_row,
                   static_cast<std::size_t>(row));
    }
  }
}

// Through the stages, a few rows at a time: to their places where they can be made there, else to a
// buffer in the first-level cache and from there on.
bool convert(const Plane& plane, const Recipe& recipe) {
  bool fits = true;
  alignas(64) std::byte buffer[kRunBytes];
  const auto source_word = static_cast<std::int64_t>(recipe.source_width);
  const auto target_word = static_cast<std::int64_t>(recipe.target_width);
  const bool in_place = plane.target_column == target_word && !plane.stream &&
                        (plane.rows == 1 || plane.columns >= kLongRow);
  const std::int64_t run = static_cast<std::int64_t>(kRunBytes) / target_word;
  const bool packed = plane.source_row == plane.columns * source_word;
  const std::int64_t rows =
      packed && !in_place ? std::max<std::int64_t>(1, run / plane.columns) : 1;
  const std::int64_t columns = in_place ? plane.columns : std::min(run, plane.columns);
  Plane piece = plane;
  for (std::int64_t r = 0; r < plane.rows; r += rows) {
    piece.rows = std::min(rows, plane.rows - r);
    for (std::int64_t c = 0; c < plane.columns; c += columns) {
      piece.columns = std::min(columns, plane.columns - c);
      const std::byte* source = plane.source + r * plane.source_row + c * source_word;
      std::byte* target = plane.target + r * plane.target_row + c * plane.target_column;
      fits &= run_stages(recipe, in_place ? target : buffer, source,
                         static_cast<std::size_t>(piece.rows * piece.columns));
      if (!in_place) {
        piece.source = buffer;
        piece.source_row = piece.columns * target_word;
        piece.source_column = target_word;
        piece.target = target;
        deliver(piece, recipe.target_width);
      }
    }
  }
  return fits;
}

// Of its own, so that a plane that needs no buffer does not touch the memory of one: its stack is
// probed page by page, a tenth of the time of a copy within the cache.
[[gnu::noinline]] bool copy_gathered(Plane plane, const Recipe& recipe) {
  TileBuffer gathered;
  gather(plane, recipe.source_width, gathered);
  if (recipe.stages > 0) {
    return convert(plane, recipe);
  }
  deliver(plane, recipe.target_width);
  return true;
}

}  // namespace

bool copy_tile(const Plane& plane, const Recipe& recipe) noexcept {
  const auto word = static_cast<std::int64_t>(recipe.source_width);
  const bool packed = plane.source_column == word;
  const bool crowded = plane.source_row == word && plane.target_column == word &&
                       plane.target_row % kCrowded == 0 && plane.rows > kLinesOfSet;
  // Pixels go to their planes from registers, past the cache or not: a tile between takes twice as
  // long.
  const bool direct =
      packed || is_interleaved(plane.rows, plane.source_row, plane.source_column, word);
  if (recipe.stages == 0 && (direct || !(plane.stream || crowded))) {
    deliver(plane, recipe.target_width);
    return true;
  }
  if (recipe.stages > 0 && packed && (plane.rows == 1 || plane.columns >= kLongRow)) {
    return convert(plane, recipe);
  }
  return copy_gathered(plane, recipe);
}

}  // namespace dlbridge::detail
