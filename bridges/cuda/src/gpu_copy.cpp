// From a job to loops over words that the device copies well.

#include "gpu_copy.hpp"

#include <algorithm>
#include <bit>

#include "copy/loops.hpp"
#include "copy/recipe.hpp"

namespace dlbridge::cuda {
namespace {

// Below this most lanes of a tile would be idle.
constexpr std::uint64_t kShortestTileSide = 16;

ElementChange change_of(const CopyJob& job) {
  const DType from = job.source_dtype;
  const DType to = job.target_dtype;
  ElementChange change;
  change.source_numbers = from.is(kDLComplex) ? 2 : 1;
  change.source_width = static_cast<std::uint8_t>(from.bits / 8 / change.source_numbers);
  change.target_numbers = to.is(kDLComplex) ? 2 : 1;
  change.target_width = static_cast<std::uint8_t>(to.bits / 8 / change.target_numbers);
  const Sign sign = detail::negation_of(from);
  change.swap_bytes = job.swap_bytes;
  change.real = job.negate ? sign : Sign::kKeep;
  // Conjugated and negated the imaginary part is as it was.
  change.imaginary = job.negate != job.conjugate ? sign : Sign::kKeep;
  if (from != to) {
    change.from = detail::kNumberOf[from];
    change.to = detail::kNumberOf[to];
    change.cast = change.from != change.to;
  }
  return change;
}

// The bits in which an address may differ from a multiple of a power of two.
std::uint64_t residue_of(const DeviceCopy& copy, const void* memory,
                         std::int64_t DeviceLoop::*stride) {
  std::uint64_t residue = reinterpret_cast<std::uintptr_t>(memory);
  for (int i = 0; i < copy.loops; ++i) {
    residue |= static_cast<std::uint64_t>(copy.loop[i].*stride);
  }
  return residue;
}

std::uint64_t source_residue(const DeviceCopy& copy) {
  return residue_of(copy, copy.source, &DeviceLoop::source_stride);
}

std::uint64_t target_residue(const DeviceCopy& copy) {
  return residue_of(copy, copy.target, &DeviceLoop::target_stride);
}

// The widest words that rows are made of and both sides are aligned to.
void choose_words(DeviceCopy& copy) {
  const auto width = static_cast<std::int64_t>(copy.source_width);
  std::uint64_t row = copy.source_width;
  if (copy.loops > 0) {
    const DeviceLoop& inner = copy.loop[copy.loops - 1];
    if (inner.source_stride == width && inner.target_stride == width) {
      row *= inner.extent;
      --copy.loops;
    }
  }
  const std::uint64_t residue = row | source_residue(copy) | target_residue(copy);
  const std::uint64_t word = std::min<std::uint64_t>(16, residue & (~residue + 1));
  copy.contiguous = copy.loops == 0;
  if (row != word) {
    copy.loop[copy.loops++] =
        device_loop(row / word, static_cast<std::int64_t>(word), static_cast<std::int64_t>(word));
  }
  copy.source_width = copy.target_width = static_cast<std::uint32_t>(word);
}

std::uint64_t distance(std::int64_t stride) {
  return stride < 0 ? 0 - static_cast<std::uint64_t>(stride) : static_cast<std::uint64_t>(stride);
}

// Tiles are for a source that is closest along another loop than the target's innermost.
void choose_tiles(DeviceCopy& copy) {
  if (copy.loops < 2 || !copy.source_aligned) {
    return;
  }
  const int inner = copy.loops - 1;
  const auto source_distance = [&copy](int i) { return distance(copy.loop[i].source_stride); };
  int closest = inner;
  for (int i = 0; i < inner; ++i) {
    if (source_distance(i) != 0 && source_distance(i) < source_distance(closest)) {
      closest = i;
    }
  }
  if (closest == inner || source_distance(inner) < 4 * std::uint64_t{copy.source_width} ||
      copy.loop[inner].extent < kShortestTileSide ||
      copy.loop[closest].extent < kShortestTileSide) {
    return;
  }
  copy.tiled = true;
  copy.columns = copy.loop[inner];
  copy.rows = copy.loop[closest];
  std::move(copy.loop + closest + 1, copy.loop + inner, copy.loop + closest);
  copy.loops -= 2;
}

}  // namespace

DeviceLoop device_loop(std::uint64_t extent, std::int64_t source_stride,
                       std::int64_t target_stride) noexcept {
  DeviceLoop loop{source_stride, target_stride, extent, 1, 0};
  if (extent < (std::uint64_t{1} << 31)) {
    loop.shift = static_cast<std::uint32_t>(std::bit_width(extent - 1));
    const std::uint64_t power = std::uint64_t{1} << loop.shift;
    loop.magic = static_cast<std::uint32_t>(((power - extent) << 32) / extent + 1);
  }
  return loop;
}

DeviceCopy cut_for_device(const CopyJob& job) noexcept {
  // The core knows which elements are words of their own and which are rows of words, and how few
  // loops do. Its stages are for the host's vector units; here they only say that something
  // changes.
  detail::Recipe recipe = detail::make_recipe(job);
  detail::LoopNest nest;
  detail::make_loop_nest(job, recipe, nest);
  DeviceCopy copy;
  if (nest.empty) {
    return copy;
  }
  copy.source = nest.source;
  copy.target = nest.target;
  copy.source_width = static_cast<std::uint32_t>(recipe.source_width);
  copy.target_width = static_cast<std::uint32_t>(recipe.target_width);
  copy.loops = nest.loops;
  for (int i = 0; i < nest.loops; ++i) {
    const detail::Loop& loop = nest.loop[static_cast<std::size_t>(i)];
    copy.loop[i] = device_loop(static_cast<std::uint64_t>(loop.extent), loop.source_stride,
                               loop.target_stride);
  }
  if (recipe.stages == 0) {
    choose_words(copy);
  } else {
    copy.changes = true;
    copy.change = change_of(job);
    copy.source_aligned = source_residue(copy) % copy.source_width == 0;
    copy.target_aligned = target_residue(copy) % copy.target_width == 0;
  }
  copy.words = 1;
  for (int i = 0; i < copy.loops; ++i) {
    copy.words *= copy.loop[i].extent;
  }
  choose_tiles(copy);
  return copy;
}

}  // namespace dlbridge::cuda
