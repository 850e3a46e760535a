#include "copy/planes.hpp"

#include <array>
#include <cstdlib>
#include <utility>

#include "copy/simd.hpp"
#include "copy/streaming.hpp"

namespace dlbridge::detail {
namespace {

struct Word16 {
  std::array<std::uint64_t, 2> half;
};

// Rows of one to two words, pixels of three channels say: two words each, which overlap.
template <class Word>
void copy_short_rows(const Plane& plane, std::int64_t row) {
  const std::int64_t last = row - static_cast<std::int64_t>(sizeof(Word));
  for (std::int64_t r = 0; r < plane.rows; ++r) {
    const std::byte* source = plane.source + r * plane.source_row;
    std::byte* target = plane.target + r * plane.target_row;
    const Word begin = load<Word>(source);
    const Word end = load<Word>(source + last);
    store(target, begin);
    store(target + last, end);
  }
}

void copy_packed_rows(const Plane& plane, std::int64_t row) {
  if (row >= 2 && row < 32) {
    return row < 4    ? copy_short_rows<std::uint16_t>(plane, row)
           : row < 8  ? copy_short_rows<std::uint32_t>(plane, row)
           : row < 16 ? copy_short_rows<std::uint64_t>(plane, row)
                      : copy_short_rows<Word16>(plane, row);
  }
  for (std::int64_t r = 0; r < plane.rows; ++r) {
    std::memcpy(plane.target + r * plane.target_row, plane.source + r * plane.source_row,
                static_cast<std::size_t>(row));
  }
}

// A stride that the compiler knows is one that it can vectorise.
template <class Word, std::int64_t kSourceStep>
DLBRIDGE_INLINE void copy_row(std::byte* __restrict target, const std::byte* __restrict source,
                              std::int64_t count) {
  constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
  for (std::int64_t i = 0; i < count; ++i) {
    store(target + i * kWidth, load<Word>(source + i * kSourceStep * kWidth));
  }
}

template <class Word>
struct Words {
  DLBRIDGE_INLINE static void run(const Plane& plane) {
    constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
    const std::int64_t step =
        plane.target_column == kWidth ? plane.source_column : plane.target_column;
    for (std::int64_t r = 0; r < plane.rows; ++r) {
      const std::byte* source = plane.source + r * plane.source_row;
      std::byte* target = plane.target + r * plane.target_row;
      if (plane.target_column != kWidth) {
        for (std::int64_t c = 0; c < plane.columns; ++c) {
          store(target + c * plane.target_column, load<Word>(source + c * plane.source_column));
        }
      } else if (step == -kWidth) {
        copy_row<Word, -1>(target, source, plane.columns);
      } else if (step == 0) {
        copy_row<Word, 0>(target, source, plane.columns);
      } else if (step == 2 * kWidth) {
        copy_row<Word, 2>(target, source, plane.columns);
      } else {
        for (std::int64_t c = 0; c < plane.columns; ++c) {
          store(target + c * kWidth, load<Word>(source + c * step));
        }
      }
    }
  }
};

/// Pixels into planes: the source is packed, with the rows' words next to one another. Where kStep
/// is -1 the planes are written backwards.
template <class Word, int kRows, std::int64_t kStep>
struct Deinterleave {
  DLBRIDGE_INLINE static void run(const Plane& plane) {
    std::byte* __restrict target = plane.target;
    const std::byte* __restrict source = plane.source;
    for (std::int64_t c = 0; c < plane.columns; ++c) {
      for (std::int64_t r = 0; r < kRows; ++r) {
        constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
        store(target + r * plane.target_row + kStep * c * kWidth,
              load<Word>(source + (c * kRows + r) * kWidth));
      }
    }
  }
};
template <class Word, int kRows>
using Forwards = Deinterleave<Word, kRows, 1>;
template <class Word, int kRows>
using Backwards = Deinterleave<Word, kRows, -1>;

/// Pixels into pixels, with their words, which are the columns, in the other order.
template <class Word, int kColumns>
struct ReversePixels {
  DLBRIDGE_INLINE static void run(const Plane& plane) {
    constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
    std::byte* __restrict target = plane.target;
    const std::byte* __restrict source = plane.source - (kColumns - 1) * kWidth;
    for (std::int64_t r = 0; r < plane.rows; ++r) {
      for (std::int64_t c = 0; c < kColumns; ++c) {
        store(target + (r * kColumns + c) * kWidth,
              load<Word>(source + (r * kColumns + kColumns - 1 - c) * kWidth));
      }
    }
  }
};

/// Planes into pixels: the target is packed, with the columns' words next to one another.
template <class Word, int kColumns>
struct Interleave {
  DLBRIDGE_INLINE static void run(const Plane& plane) {
    std::byte* __restrict target = plane.target;
    const std::byte* __restrict source = plane.source;
    for (std::int64_t r = 0; r < plane.rows; ++r) {
      for (std::int64_t c = 0; c < kColumns; ++c) {
        constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
        store(target + (r * kColumns + c) * kWidth,
              load<Word>(source + c * plane.source_column + r * kWidth));
      }
    }
  }
};

// Squares of words in vector registers. Interleaving the first half of the vectors with the second,
// as often as it takes to halve their number to one, transposes them.
#if defined(__GNUC__) && __GNUC__ >= 12 || defined(__clang__)
#define DLBRIDGE_SQUARES 1

template <class Word, std::size_t kBytes>
struct Vector {
  typedef Word Type __attribute__((vector_size(kBytes)));
};

template <class Word, std::size_t kBytes = 16>
using VectorOf = typename Vector<Word, kBytes>::Type;

template <class Word, std::size_t kFirst, std::size_t... kIndex>
DLBRIDGE_INLINE VectorOf<Word> zip(VectorOf<Word> a, VectorOf<Word> b,
                                   std::index_sequence<kIndex...>) {
  return __builtin_shufflevector(a, b, (kFirst + kIndex / 2 + (kIndex % 2) * sizeof...(kIndex))...);
}

template <class Word>
DLBRIDGE_INLINE void transpose_square(const std::byte* source, std::int64_t source_step,
                                      std::byte* target, std::int64_t target_step) {
  constexpr std::size_t kSide = 16 / sizeof(Word);
  constexpr std::make_index_sequence<kSide> kAll{};
  VectorOf<Word> square[kSide];
  for (std::size_t i = 0; i < kSide; ++i) {
    square[i] = load<VectorOf<Word>>(source + static_cast<std::int64_t>(i) * source_step);
  }
  for (std::size_t length = kSide; length > 1; length /= 2) {
    VectorOf<Word> next[kSide];
    for (std::size_t i = 0; i < kSide / 2; ++i) {
      next[2 * i] = zip<Word, 0>(square[i], square[i + kSide / 2], kAll);
      next[2 * i + 1] = zip<Word, kSide / 2>(square[i], square[i + kSide / 2], kAll);
    }
    for (std::size_t i = 0; i < kSide; ++i) {
      square[i] = next[i];
    }
  }
  for (std::size_t i = 0; i < kSide; ++i) {
    store(target + static_cast<std::int64_t>(i) * target_step, square[i]);
  }
}

#ifdef DLBRIDGE_HAS_AVX2
/// Pixels of three channels into planes, in registers of two halves that shuffles do not cross.
template <class Word, bool kStream>
struct DeinterleaveThree {
  static constexpr std::size_t kHalf = 16 / sizeof(Word);
  static constexpr std::size_t kWhole = 2 * kHalf;
  using Register = VectorOf<Word, 32>;

  // Either half from pixels of its own.
  template <std::size_t... kIndex>
  DLBRIDGE_INLINE static void load_halves(Register& to, const std::byte* from,
                                          std::index_sequence<kIndex...> /*all*/) {
    to = __builtin_shufflevector(load<VectorOf<Word>>(from), load<VectorOf<Word>>(from + 48),
                                 kIndex...);
  }

  // At each place one of the three holds a word of the channel: blended into one register they only
  // have to be put in order.
  template <std::size_t kChannel, std::size_t... kIndex>
  DLBRIDGE_INLINE static void store_channel(std::byte* to, const Register (&pixels)[3],
                                            std::index_sequence<kIndex...> /*all*/) {
    const Register two = __builtin_shufflevector(
        pixels[0], pixels[1], (kIndex % kHalf % 3 == kChannel ? kIndex : kIndex + kWhole)...);
    const Register all = __builtin_shufflevector(
        two, pixels[2],
        ((kIndex % kHalf + 2 * kHalf) % 3 == kChannel ? kIndex + kWhole : kIndex)...);
    const Register ordered = __builtin_shufflevector(
        all, all, (kIndex / kHalf * kHalf + (3 * (kIndex % kHalf) + kChannel) % kHalf)...);
    if constexpr (kStream) {
      const auto* words = reinterpret_cast<const std::byte*>(&ordered);
      stream_word(to, words);
      stream_word(to + kStreamed, words + kStreamed);
    } else {
      std::memcpy(to, &ordered, sizeof ordered);
    }
  }

  DLBRIDGE_INLINE static void run(const Plane& plane) {
    constexpr std::make_index_sequence<kWhole> kAll{};
    constexpr auto kStep = static_cast<std::int64_t>(kWhole);
    Plane rest = plane;
    for (; rest.columns >= kStep; rest.columns -= kStep) {
      Register pixels[3];
      load_halves(pixels[0], rest.source, kAll);
      load_halves(pixels[1], rest.source + 16, kAll);
      load_halves(pixels[2], rest.source + 32, kAll);
      store_channel<0>(rest.target, pixels, kAll);
      store_channel<1>(rest.target + plane.target_row, pixels, kAll);
      store_channel<2>(rest.target + 2 * plane.target_row, pixels, kAll);
      rest.source += sizeof pixels;
      rest.target += sizeof(Register);
    }
    Forwards<Word, 3>::run(rest);
  }
};
#endif

// The source's next columns. Each lies elsewhere, and too short a piece of it is read for the
// processor to foresee them: this doubles the speed of large transposes.
template <class Word>
DLBRIDGE_INLINE void prefetch_square(const Plane& plane, std::int64_t column, std::int64_t rows) {
  constexpr std::int64_t kSide = 16 / sizeof(Word);
  const std::int64_t end = column + kSide < plane.columns ? column + kSide : plane.columns;
  for (std::int64_t c = column; c < end; ++c) {
    const std::byte* source = plane.source + c * plane.source_column;
    for (std::int64_t at = 0; at < rows * static_cast<std::int64_t>(sizeof(Word)); at += 64) {
      __builtin_prefetch(source + at);
    }
  }
}
#endif

/// Rows lie packed in the source's columns: source_row and target_column are one word.
template <class Word>
struct Transpose {
  static void run(const Plane& plane) {
    std::int64_t columns = 0;
    std::int64_t rows = 0;
#ifdef DLBRIDGE_SQUARES
    constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
    constexpr std::int64_t kSide = 16 / kWidth;
    columns = plane.columns / kSide * kSide;
    rows = plane.rows / kSide * kSide;
    for (std::int64_t c = 0; c < columns; c += kSide) {
      prefetch_square<Word>(plane, c + kSide, rows);
      for (std::int64_t r = 0; r < rows; r += kSide) {
        transpose_square<Word>(plane.source + c * plane.source_column + r * kWidth,
                               plane.source_column,
                               plane.target + r * plane.target_row + c * kWidth, plane.target_row);
      }
    }
#endif
    copy_part(plane, 0, columns, plane.rows, plane.columns);
    copy_part(plane, rows, 0, plane.rows, columns);
  }

  // What is left beside the squares, and below them.
  static void copy_part(Plane plane, std::int64_t row, std::int64_t column, std::int64_t row_end,
                        std::int64_t column_end) {
    plane.source += row * plane.source_row + column * plane.source_column;
    plane.target += row * plane.target_row + column * plane.target_column;
    plane.rows = row_end - row;
    plane.columns = column_end - column;
    Words<Word>::run(plane);
  }
};

template <class Word, template <class, int> class Loop>
void run_pixels(const Plane& plane, std::int64_t count) {
  switch (count) {
    case 2:
      return run_best<Loop<Word, 2>, const Plane&>(plane);
    case 3:
      return run_best<Loop<Word, 3>, const Plane&>(plane);
    default:
      return run_best<Loop<Word, 4>, const Plane&>(plane);
  }
}

// So that a source that is walked backwards is walked forwards, and the target is the other one.
void begin_at_other_end(Plane& plane, std::int64_t count, std::int64_t& source_step,
                        std::int64_t& target_step) {
  if (source_step < 0) {
    plane.source += (count - 1) * source_step;
    plane.target += (count - 1) * target_step;
    source_step = -source_step;
    target_step = -target_step;
  }
}

template <class Word>
void copy_plane_of(Plane plane) {
  constexpr auto kWidth = static_cast<std::int64_t>(sizeof(Word));
  const auto turn = [&plane] {
    std::swap(plane.rows, plane.columns);
    std::swap(plane.source_row, plane.source_column);
    std::swap(plane.target_row, plane.target_column);
  };
  if (plane.target_row == kWidth && plane.target_column != kWidth) {
    turn();
  }
  if (plane.target_column == kWidth) {
    if (plane.source_column == kWidth) {
      return copy_packed_rows(plane, plane.columns * kWidth);
    }
    if (is_interleaved(plane.rows, plane.source_row, plane.source_column, kWidth)) {
      const bool forwards = plane.source_column > 0;
      begin_at_other_end(plane, plane.rows, plane.source_row, plane.target_row);
      begin_at_other_end(plane, plane.columns, plane.source_column, plane.target_column);
#if defined(DLBRIDGE_SQUARES) && defined(DLBRIDGE_HAS_AVX2)
      if constexpr (kWidth < 16) {
        if (forwards && plane.rows == 3 && has_avx2()) {
          const auto place = reinterpret_cast<std::uintptr_t>(plane.target);
          return plane.stream &&
                         (place | static_cast<std::uintptr_t>(plane.target_row)) % kStreamed == 0
                     ? run_avx2<DeinterleaveThree<Word, true>, const Plane&>(plane)
                     : run_avx2<DeinterleaveThree<Word, false>, const Plane&>(plane);
        }
      }
#endif
      return forwards ? run_pixels<Word, Forwards>(plane, plane.rows)
                      : run_pixels<Word, Backwards>(plane, plane.rows);
    }
    const std::int64_t pixel = plane.columns * kWidth;
    if (plane.source_column == -kWidth && plane.source_row == pixel && plane.target_row == pixel &&
        is_interleaved(plane.columns, kWidth, pixel, kWidth)) {
      return run_pixels<Word, ReversePixels>(plane, plane.columns);
    }
    if (plane.source_row == kWidth) {
      if (is_interleaved(plane.columns, plane.target_column, plane.target_row, kWidth)) {
        return run_pixels<Word, Interleave>(plane, plane.columns);
      }
      if constexpr (kWidth < 16) {
        if (plane.rows * kWidth >= 16 && plane.columns * kWidth >= 16) {
          return Transpose<Word>::run(plane);
        }
      }
    }
  }
  if (plane.columns < 8 && plane.columns < plane.rows) {
    turn();
  }
  run_best<Words<Word>, const Plane&>(plane);
}

}  // namespace

bool is_interleaved(std::int64_t count, std::int64_t word_step, std::int64_t pixel_step,
                    std::int64_t width) noexcept {
  return count >= 2 && count <= 4 && std::abs(word_step) == width &&
         std::abs(pixel_step) == count * width;
}

void copy_plane(const Plane& plane, std::size_t width) noexcept {
  switch (width) {
    case 1:
      return copy_plane_of<std::uint8_t>(plane);
    case 2:
      return copy_plane_of<std::uint16_t>(plane);
    case 4:
      return copy_plane_of<std::uint32_t>(plane);
    case 8:
      return copy_plane_of<std::uint64_t>(plane);
    default:
      return copy_plane_of<Word16>(plane);
  }
}

}  // namespace dlbridge::detail
