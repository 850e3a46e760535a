// From a job's types and flags to what happens to one element.

#include "copy/recipe.hpp"

#include <algorithm>

#include "copy/numbers.hpp"
#include "copy/simd.hpp"

namespace dlbridge {
namespace detail {
namespace {

template <class T>
struct PairWithZero {
  DLBRIDGE_INLINE static bool run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      store<T>(to + 2 * i * sizeof(T), load<T>(from + i * sizeof(T)));
      store<T>(to + (2 * i + 1) * sizeof(T), T{0});
    }
    return true;
  }
};

void add_stage(Recipe& recipe, Kernel kernel, std::size_t items) {
  if (kernel != nullptr) {
    recipe.stage[recipe.stages++] = Stage{kernel, items, recipe.source_width};
  }
}

void add_inner_dim(Recipe& recipe, std::int64_t extent, std::int64_t source_stride,
                   std::int64_t target_stride) {
  if (extent > 1) {
    recipe.inner[recipe.inner_dims++] = InnerDim{extent, source_stride, target_stride};
  }
}

// An element of any number of bytes as a row of words that loops copy well.
Recipe opaque_recipe(std::int64_t itemsize) {
  Recipe recipe;
  const std::int64_t word = std::min<std::int64_t>(16, itemsize & -itemsize);
  recipe.source_width = recipe.target_width = static_cast<std::size_t>(word);
  add_inner_dim(recipe, itemsize / word, word, word);
  return recipe;
}

// Byte swap of numbers that no kernel swaps: as bytes, read backwards.
Recipe backwards_recipe(std::int64_t numbers, std::int64_t width) {
  Recipe recipe;
  recipe.source_width = recipe.target_width = 1;
  recipe.source_offset = width - 1;
  add_inner_dim(recipe, numbers, width, width);
  add_inner_dim(recipe, width, -1, 1);
  return recipe;
}

constexpr bool is_kernel_width(std::int64_t bytes) {
  return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
}

}  // namespace

Recipe make_recipe(const CopyJob& job) noexcept {
  const DType from = job.source_dtype;
  const bool is_complex = from.is(kDLComplex) && from.bits % 16 == 0;
  const bool same = from == job.target_dtype;
  const bool changes_bits = job.swap_bytes || job.negate || (job.conjugate && is_complex);
  if (same && (!changes_bits || from.bits % 8 != 0)) {
    return opaque_recipe(from.itemsize());
  }
  const std::int64_t numbers = is_complex ? 2 : 1;
  const std::int64_t number_width = from.bits / 8 / numbers;
  if (!is_kernel_width(number_width)) {
    return job.swap_bytes ? backwards_recipe(numbers * from.lanes, number_width)
                          : opaque_recipe(from.itemsize());
  }

  Recipe recipe;
  const std::int64_t lane = numbers * number_width;
  recipe.source_width = recipe.target_width = static_cast<std::size_t>(lane);
  add_inner_dim(recipe, from.lanes, lane, lane);
  const auto items = static_cast<std::size_t>(numbers);
  const auto width = static_cast<std::size_t>(number_width);
  if (job.swap_bytes) {
    add_stage(recipe, swap_kernel(width), items);
  }
  if (is_complex && job.conjugate) {
    add_stage(recipe, conjugate_kernel(width, job.negate), 1);
  } else if (job.negate) {
    add_stage(recipe, negate_kernel(from), items);
  }
  if (!same) {
    add_cast(recipe, from, job.target_dtype, items);
    recipe.target_width = static_cast<std::size_t>(job.target_dtype.itemsize());
    if (job.target_dtype.is(kDLComplex) && !is_complex) {
      const std::size_t part = recipe.target_width / 2;
      const Kernel pair = part == 2   ? kKernels<PairWithZero<std::uint16_t>>.best()
                          : part == 4 ? kKernels<PairWithZero<std::uint32_t>>.best()
                                      : kKernels<PairWithZero<std::uint64_t>>.best();
      recipe.stage[recipe.stages++] = Stage{pair, 1, recipe.target_width};
    }
  }
  return recipe;
}

}  // namespace detail

bool can_cast(DType from, DType to) noexcept {
  if (from == to) {
    return from.whole_bytes();
  }
  const auto is_number = [](DType dtype) {
    return detail::kNumberOf[dtype] != detail::Number::kNone;
  };
  return is_number(from) && is_number(to) && (!from.is(kDLComplex) || to.is(kDLComplex));
}

bool always_fits(DType from, DType to) noexcept {
  if (from == to || from.is(kDLBool) || to.is(kDLBool)) {
    return true;
  }
  if (to.kind() == DType::Kind::kInteger) {
    return from.code == to.code ? from.bits <= to.bits
                                : from.is(kDLUInt) && to.is(kDLInt) && from.bits < to.bits;
  }
  const int bits = to.is(kDLComplex) ? to.bits / 2 : to.bits;
  const bool from_double = from == DType{kDLFloat, 64} || from == DType{kDLComplex, 128};
  return bits == 64 || (bits == 32 && !from_double);
}

}  // namespace dlbridge
