#pragma once

// A copy as the device carries it out, and what one of its threads does: for the device and,
// compiled from the same source, for tests on the host.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "dlbridge/copy.hpp"
#include "gpu_element.hpp"

namespace dlbridge::cuda {

/// One loop of a copy. Strides in bytes. The last two make a division by `extent` a multiplication
/// (Granlund and Montgomery, 1994), for numbers below 2^31.
struct DeviceLoop {
  std::int64_t source_stride = 0;
  std::int64_t target_stride = 0;
  std::uint64_t extent = 1;
  std::uint32_t magic = 1;
  std::uint32_t shift = 0;
};

/// A copy cut for the device, as its kernels get it: by value, below the 4 KB of their parameters.
///
/// What is copied are words: whole elements where they change on the way, else whatever piece of a
/// row both sides are aligned to.
struct DeviceCopy {
  static constexpr int kMaxLoops = 65;  // those of a job, and one over the words of an element

  const std::byte* source = nullptr;
  std::byte* target = nullptr;
  std::uint64_t words = 0;         // of all loops, those of the tiles too
  std::uint32_t source_width = 1;  // bytes of a word: 1, 2, 4, 8 or 16
  std::uint32_t target_width = 1;  // likewise; another one only where elements change
  bool contiguous = false;         // the words lie side by side on both sides, in the same order
  bool changes = false;            // `change` says how
  bool source_aligned = true;      // every word of the source lies at a multiple of its width
  bool target_aligned = true;      // likewise; both always hold where nothing changes
  bool tiled = false;              // rows and columns are to be exchanged tile by tile
  ElementChange change;
  // Where tiled: the source is closest along the rows' loop, the target along the columns' loop.
  DeviceLoop rows;
  DeviceLoop columns;
  int loops = 0;  // the others; outermost first
  DeviceLoop loop[kMaxLoops];
};

static_assert(sizeof(DeviceCopy) <= 4096);

/// The job of copy_elements(), cut for the device. Borrows only the two memories.
[[nodiscard]] DeviceCopy cut_for_device(const CopyJob& job) noexcept;

[[nodiscard]] DeviceLoop device_loop(std::uint64_t extent, std::int64_t source_stride,
                                     std::int64_t target_stride) noexcept;

// --- where a word is --------------------------------------------------------------------------

struct Offsets {
  std::int64_t source = 0;
  std::int64_t target = 0;
};

/// Whether 32 bits do for the indices of the words. (Offsets always have 64.)
DLBRIDGE_BOTH inline bool has_short_indices(const DeviceCopy& copy) {
  return copy.words < (std::uint64_t{1} << 31);
}

DLBRIDGE_BOTH inline std::uint32_t quotient(std::uint32_t index, const DeviceLoop& loop) {
  const auto high = static_cast<std::uint32_t>((std::uint64_t{index} * loop.magic) >> 32);
  return (high + index) >> loop.shift;
}

DLBRIDGE_BOTH inline std::uint64_t quotient(std::uint64_t index, const DeviceLoop& loop) {
  return index / loop.extent;
}

/// Of the word with that index, counted with the innermost loop first.
template <class Index>
DLBRIDGE_BOTH inline Offsets offsets_of(const DeviceCopy& copy, Index index) {
  Offsets at;
  for (int i = copy.loops - 1; i >= 0; --i) {
    const DeviceLoop& loop = copy.loop[i];
    // The outermost takes what is left.
    const Index rounds = i > 0 ? quotient(index, loop) : Index{0};
    const auto step = static_cast<std::int64_t>(index - rounds * static_cast<Index>(loop.extent));
    at.source += step * loop.source_stride;
    at.target += step * loop.target_stride;
    index = rounds;
  }
  return at;
}

// --- words in memory --------------------------------------------------------------------------

template <class Word>
DLBRIDGE_BOTH inline Word load_word(const std::byte* from) {
#ifdef __CUDA_ARCH__
  return *reinterpret_cast<const Word*>(from);
#else
  // What the device would fault on.
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof(Word) != 0) {
    std::abort();
  }
  Word word;
  std::memcpy(&word, from, sizeof word);
  return word;
#endif
}

template <class Word>
DLBRIDGE_BOTH inline void store_word(std::byte* to, Word word) {
#ifdef __CUDA_ARCH__
  *reinterpret_cast<Word*>(to) = word;
#else
  if (reinterpret_cast<std::uintptr_t>(to) % sizeof(Word) != 0) {
    std::abort();
  }
  std::memcpy(to, &word, sizeof word);
#endif
}

template <class Word>
DLBRIDGE_BOTH inline Lane lane_of(Word word) {
  return Lane{word, 0};
}

template <>
DLBRIDGE_BOTH inline Lane lane_of(Lane word) {
  return word;
}

/// Byte by byte, from any address.
DLBRIDGE_BOTH inline Lane load_bytes(const std::byte* from, std::uint32_t width) {
  Lane lane;
  for (std::uint32_t i = 0; i < width; ++i) {
    const auto byte = static_cast<std::uint64_t>(load_word<std::uint8_t>(from + i));
    (i < 8 ? lane.low : lane.high) |= byte << (8 * (i % 8));
  }
  return lane;
}

DLBRIDGE_BOTH inline void store_lane(std::byte* to, const Lane& lane, std::uint32_t width,
                                     bool aligned) {
  if (!aligned) {
    for (std::uint32_t i = 0; i < width; ++i) {
      const std::uint64_t bits = (i < 8 ? lane.low : lane.high) >> (8 * (i % 8));
      store_word(to + i, static_cast<std::uint8_t>(bits));
    }
    return;
  }
  switch (width) {
    case 1:
      return store_word(to, static_cast<std::uint8_t>(lane.low));
    case 2:
      return store_word(to, static_cast<std::uint16_t>(lane.low));
    case 4:
      return store_word(to, static_cast<std::uint32_t>(lane.low));
    case 8:
      return store_word(to, lane.low);
    default:
      return store_word(to, lane);
  }
}

// --- what a thread does -----------------------------------------------------------------------
// `Put` is called as put(copy, target, word): it stores the word, changed if it is to be.

constexpr unsigned kThreads = 256;          // of a block
constexpr unsigned kBatch = 4;              // words that a thread has under way at a time
constexpr unsigned kMostBlocks = 1U << 20;  // so that short indices do not overflow

/// Every `threads`-th word from `first` on. `threads` is at most kThreads * kMostBlocks.
template <class Word, class Index, class Put>
DLBRIDGE_BOTH inline void copy_words(const DeviceCopy& copy, Index first, Index threads,
                                     const Put& put) {
  const auto words = static_cast<Index>(copy.words);
  for (Index next = first; next < words; next += kBatch * threads) {
    Word word[kBatch];
    std::int64_t target[kBatch];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (unsigned i = 0; i < kBatch; ++i) {
      const Index index = next + i * threads;
      if (index < words) {
        const Offsets at = offsets_of(copy, index);
        target[i] = at.target;
        word[i] = load_word<Word>(copy.source + at.source);
      }
    }
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (unsigned i = 0; i < kBatch; ++i) {
      if (next + i * threads < words) {
        put(copy, copy.target + target[i], word[i]);
      }
    }
  }
}

/// The same for elements that change and lie anywhere, or are too many for short indices, byte by
/// byte; `Put` gets them as a Lane.
template <class Put>
DLBRIDGE_BOTH inline void copy_scattered(const DeviceCopy& copy, std::uint64_t first,
                                         std::uint64_t threads, const Put& put) {
  for (std::uint64_t index = first; index < copy.words; index += threads) {
    const Offsets at = offsets_of(copy, index);
    put(copy, copy.target + at.target, load_bytes(copy.source + at.source, copy.source_width));
  }
}

// --- tiles --------------------------------------------------------------------------------------

/// A square of words that a block of threads reads along the source's closest dimension, keeps in
/// shared memory, and writes along the target's. The pitch is an odd number of 4-byte banks or, for
/// wide words, of words: neither direction has two threads at one bank.
template <class Word>
struct Tile {
  static constexpr std::uint32_t kSide = sizeof(Word) <= 2 ? 64 : 32;
  static constexpr std::uint32_t kPitch = kSide + (sizeof(Word) == 1   ? 4
                                                   : sizeof(Word) == 2 ? 2
                                                                       : 1);
  static constexpr std::uint32_t kWords = kSide * kPitch;
  static constexpr std::uint32_t kLanes = 32;  // threads along the closest dimension
  static constexpr std::uint32_t kLines = kThreads / kLanes;
};

/// Where a tile is: its corner, and how far it reaches.
struct TilePlace {
  Offsets corner;
  std::uint32_t rows = 0;
  std::uint32_t columns = 0;
};

template <class Word>
DLBRIDGE_BOTH inline std::uint64_t tiles_along(const DeviceLoop& loop) {
  return (loop.extent + Tile<Word>::kSide - 1) / Tile<Word>::kSide;
}

template <class Word>
DLBRIDGE_BOTH inline std::uint64_t tiles_of(const DeviceCopy& copy) {
  return copy.words / (copy.rows.extent * copy.columns.extent) * tiles_along<Word>(copy.rows) *
         tiles_along<Word>(copy.columns);
}

template <class Word, class Index>
DLBRIDGE_BOTH inline TilePlace tile_place_of(const DeviceCopy& copy, Index tile) {
  constexpr Index kSide = Tile<Word>::kSide;
  const auto down = static_cast<Index>(tiles_along<Word>(copy.rows));
  const auto across = static_cast<Index>(tiles_along<Word>(copy.columns));
  const Index line = tile / across;
  const Index plane = line / down;
  const Index row = (line - plane * down) * kSide;
  const Index column = (tile - line * across) * kSide;
  TilePlace place;
  place.corner = offsets_of(copy, plane);
  place.corner.source += static_cast<std::int64_t>(row) * copy.rows.source_stride +
                         static_cast<std::int64_t>(column) * copy.columns.source_stride;
  place.corner.target += static_cast<std::int64_t>(row) * copy.rows.target_stride +
                         static_cast<std::int64_t>(column) * copy.columns.target_stride;
  const std::uint64_t rows_left = copy.rows.extent - row;
  const std::uint64_t columns_left = copy.columns.extent - column;
  place.rows = static_cast<std::uint32_t>(rows_left < kSide ? rows_left : kSide);
  place.columns = static_cast<std::uint32_t>(columns_left < kSide ? columns_left : kSide);
  return place;
}

/// Divisions of 64 bits would take longer than the tile.
template <class Word>
DLBRIDGE_BOTH inline TilePlace tile_place(const DeviceCopy& copy, std::uint64_t tile,
                                          bool short_indices) {
  return short_indices ? tile_place_of<Word>(copy, static_cast<std::uint32_t>(tile))
                       : tile_place_of<Word>(copy, tile);
}

/// First all threads of a block do this ...
template <class Word>
DLBRIDGE_BOTH inline void read_tile(const DeviceCopy& copy, const TilePlace& place,
                                    std::uint32_t thread, Word* shared) {
  using T = Tile<Word>;
  for (std::uint32_t column = thread / T::kLanes; column < place.columns; column += T::kLines) {
    for (std::uint32_t row = thread % T::kLanes; row < place.rows; row += T::kLanes) {
      shared[column * T::kPitch + row] = load_word<Word>(
          copy.source + place.corner.source + std::int64_t{row} * copy.rows.source_stride +
          std::int64_t{column} * copy.columns.source_stride);
    }
  }
}

/// ... then all do this.
template <class Word, class Put>
DLBRIDGE_BOTH inline void write_tile(const DeviceCopy& copy, const TilePlace& place,
                                     std::uint32_t thread, const Word* shared, const Put& put) {
  using T = Tile<Word>;
  for (std::uint32_t row = thread / T::kLanes; row < place.rows; row += T::kLines) {
    for (std::uint32_t column = thread % T::kLanes; column < place.columns; column += T::kLanes) {
      put(copy,
          copy.target + place.corner.target + std::int64_t{row} * copy.rows.target_stride +
              std::int64_t{column} * copy.columns.target_stride,
          shared[column * T::kPitch + row]);
    }
  }
}

}  // namespace dlbridge::cuda
