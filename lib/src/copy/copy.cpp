#include "dlbridge/copy.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "copy/loops.hpp"
#include "copy/parallel.hpp"
#include "copy/recipe.hpp"
#include "copy/streaming.hpp"
#include "copy/tiles.hpp"
#include "dlbridge/threads.hpp"
#include "memory/found.hpp"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace dlbridge {
namespace detail {
namespace {

// A tile of a transpose writes so much to each row; 64 KiB of bytes then also read whole cache
// lines. Where rows are shorter than that, smaller tiles that fit the first-level cache are better.
constexpr std::int64_t kRowBytes = 1024;
constexpr std::size_t kShortRowTileBytes = 32 * 1024;
// Read and written. A helper starts in 20 to 40 us where a processor is free. Where none is it
// waits for one, 4 ms say, and holds up the end: what one thread copies in a third of a millisecond
// is not worth that.
constexpr std::int64_t kBytesPerThread = 16 * 1024 * 1024;

// What a copy may hope to have of the last-level cache. One that moves as much leaves little of its
// target there, which then is not worth reading before it is written. Virtual machines report the
// whole of a cache that is parted among many, 320 MiB say, so no more than 32 is believed; where
// none is reported, 8.
std::int64_t cache_bytes() noexcept {
  long reported = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
  reported = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return std::clamp<std::int64_t>(reported, 8 << 20, 32 << 20);
}

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// The nest cut into tiles: the columns are its innermost loop, the rows another one, and the
/// others count through the planes.
struct Tiling {
  LoopNest nest;
  Recipe recipe;
  Loop rows{1, 0, 0};
  Loop columns{1, 0, 0};
  std::int64_t tile_rows = 1;
  std::int64_t tile_columns = 1;
  std::int64_t tiles_down = 1;
  std::int64_t tiles_across = 1;
  std::int64_t planes = 1;
  bool stream = false;
  std::atomic<bool> fits = true;

  void cut();
  [[nodiscard]] bool run(std::int64_t tile) const;
};

// Takes out of the nest the loop that walks the source most closely; the rows of a tile then share
// the source's cache lines as its columns share the target's. The next loop outwards, if the
// columns themselves are closest.
Loop take_rows(LoopNest& nest, const Loop& columns) {
  const auto reach = [](const Loop& loop) {
    return loop.source_stride == 0 ? INT64_MAX : std::abs(loop.source_stride);
  };
  const auto begin = nest.loop.begin();
  const auto end = begin + nest.loops;
  auto taken = std::min_element(begin, end,
                                [&](const Loop& a, const Loop& b) { return reach(a) < reach(b); });
  if (reach(*taken) >= reach(columns)) {
    taken = end - 1;
  }
  const Loop rows = *taken;
  std::move(taken + 1, end, taken);
  --nest.loops;
  return rows;
}

void Tiling::cut() {
  if (nest.loops > 0) {
    columns = nest.loop[static_cast<std::size_t>(--nest.loops)];
  }
  if (nest.loops > 0) {
    rows = take_rows(nest, columns);
  }
  for (int i = 0; i < nest.loops; ++i) {
    planes *= nest.loop[static_cast<std::size_t>(i)].extent;
  }
  const auto source_word = static_cast<std::int64_t>(recipe.source_width);
  const auto target_word = static_cast<std::int64_t>(recipe.target_width);
  const std::int64_t width = std::max(source_word, target_word);
  const std::int64_t moved = planes * rows.extent * columns.extent * (source_word + target_word);
  // Rows that end within a cache line are for the cache to put together. Stages that make less than
  // they read are slower when they stream; by measurement, so are those that make as much.
  const bool whole_lines =
      columns.target_stride == target_word &&
      (columns.extent * target_word >= 512 || rows.target_stride == columns.extent * target_word);
  const bool across =
      rows.extent > 1 && std::abs(rows.source_stride) < std::abs(columns.source_stride);
  const bool short_rows = columns.extent * target_word < kRowBytes;
  // A transpose of long rows writes a piece of one after a piece of another, which the processor
  // does not foresee: from half of the cache on it waits for what it writes to be read first.
  const std::int64_t kept = found<cache_bytes>() / (across && !short_rows ? 2 : 1);
  stream = moved >= kept && whole_lines && (recipe.stages == 0 || target_word > source_word);
  const auto bytes =
      static_cast<std::int64_t>(across && short_rows ? kShortRowTileBytes : kTileBytes);
  const std::int64_t elements = bytes / width;
  const std::int64_t wanted = across ? kRowBytes / width : elements;
  tile_columns = std::min(columns.extent, wanted);
  tile_rows = std::min(rows.extent, std::max<std::int64_t>(1, elements / tile_columns));
  // To the end of a cache line, so that rows of the next tile begin with one.
  const std::int64_t room = elements / tile_rows;
  tile_columns = std::min(columns.extent, std::max(tile_columns, room - room % (64 / width)));
  tiles_across = divide_up(columns.extent, tile_columns);
  tiles_down = divide_up(rows.extent, tile_rows);
}

bool Tiling::run(std::int64_t tile) const {
  const std::int64_t column = tile % tiles_across * tile_columns;
  std::int64_t rest = tile / tiles_across;
  const std::int64_t row = rest % tiles_down * tile_rows;
  rest /= tiles_down;
  Plane plane;
  plane.rows = std::min(tile_rows, rows.extent - row);
  plane.columns = std::min(tile_columns, columns.extent - column);
  plane.source_row = rows.source_stride;
  plane.source_column = columns.source_stride;
  plane.target_row = rows.target_stride;
  plane.target_column = columns.target_stride;
  std::int64_t source = row * rows.source_stride + column * columns.source_stride;
  std::int64_t target = row * rows.target_stride + column * columns.target_stride;
  for (int i = nest.loops - 1; i >= 0; --i) {
    const Loop& loop = nest.loop[static_cast<std::size_t>(i)];
    source += rest % loop.extent * loop.source_stride;
    target += rest % loop.extent * loop.target_stride;
    rest /= loop.extent;
  }
  plane.source = nest.source + source;
  plane.target = nest.target + target;
  plane.stream = stream;
  return copy_tile(plane, recipe);
}

void run_tiles(void* context, std::int64_t begin, std::int64_t end) {
  auto& tiling = *static_cast<Tiling*>(context);
  for (std::int64_t tile = begin; tile < end; ++tile) {
    if (!tiling.run(tile)) {
      tiling.fits.store(false, std::memory_order_relaxed);
    }
  }
  if (tiling.stream) {
    finish_streaming();
  }
}

// The common case of a few packed bytes, without the cost of cutting tiles.
bool copy_if_small(const LoopNest& nest, const Recipe& recipe) {
  const Loop whole = nest.loops == 0 ? Loop{1, 0, 0} : nest.loop[0];
  const auto width = static_cast<std::int64_t>(recipe.source_width);
  const bool packed = nest.loops == 0 || (nest.loops == 1 && whole.source_stride == width &&
                                          whole.target_stride == width);
  if (recipe.stages > 0 || !packed ||
      whole.extent > static_cast<std::int64_t>(kTileBytes) / width) {
    return false;
  }
  std::memcpy(nest.target, nest.source,
              static_cast<std::size_t>(whole.extent) * recipe.source_width);
  return true;
}

}  // namespace
}  // namespace detail

bool copy_elements(const CopyJob& job) {
  using namespace detail;
  Tiling tiling;
  tiling.recipe = make_recipe(job);
  make_loop_nest(job, tiling.recipe, tiling.nest);
  if (tiling.nest.empty || copy_if_small(tiling.nest, tiling.recipe)) {
    return true;
  }
  tiling.cut();
  const std::int64_t tiles = tiling.planes * tiling.tiles_down * tiling.tiles_across;
  const std::int64_t tile_bytes =
      tiling.tile_rows * tiling.tile_columns *
      static_cast<std::int64_t>(tiling.recipe.source_width + tiling.recipe.target_width);
  const std::int64_t useful = tiles * tile_bytes / kBytesPerThread;
  const auto threads = static_cast<int>(std::min<std::int64_t>(useful, copy_threads()));
  if (threads <= 1) {
    run_tiles(&tiling, 0, tiles);
    return tiling.fits;
  }
  const std::int64_t grain =
      std::max<std::int64_t>(1, std::min(tiles / (threads * 8), kBytesPerThread / tile_bytes));
  run_in_parallel(tiles, grain, threads, run_tiles, &tiling);
  return tiling.fits;
}

}  // namespace dlbridge
