#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "copy/simd.hpp"
#include "dlbridge/copy.hpp"

namespace dlbridge::detail {

/// Turns `count` packed items into as many packed items. The two memories do not overlap; neither
/// needs to be aligned. False: the target's type does not hold the value of some item.
using Kernel = bool (*)(std::byte* to, const std::byte* from, std::size_t count);

/// One kernel as built for either kind of machine.
struct KernelPair {
  Kernel baseline = nullptr;
  Kernel avx2 = nullptr;

  [[nodiscard]] Kernel best() const noexcept { return has_avx2() ? avx2 : baseline; }
  friend constexpr bool operator==(KernelPair, KernelPair) = default;
};

template <class Loop>
constexpr KernelPair kKernels = {run_baseline<Loop, std::byte*, const std::byte*, std::size_t>,
                                 run_avx2<Loop, std::byte*, const std::byte*, std::size_t>};

/// One step of the way from a source element to a target element.
struct Stage {
  Kernel run = nullptr;
  std::size_t items = 1;  // of the kernel, in one element: 2 where it sees a complex as two numbers
  std::size_t width = 0;  // bytes of an element after this stage
};

/// A further, innermost dimension, for elements that no kernel takes whole.
struct InnerDim {
  std::int64_t extent = 0;
  std::int64_t source_stride = 0;
  std::int64_t target_stride = 0;
};

/// What happens to one element on its way. Without stages its bytes stay as they are.
struct Recipe {
  std::size_t source_width = 0;  // 1, 2, 4, 8 or 16
  std::size_t target_width = 0;  // likewise
  std::int64_t source_offset = 0;
  std::size_t inner_dims = 0;
  std::array<InnerDim, 3> inner;
  std::size_t stages = 0;
  // Swap bytes, flip signs, decode to float, to the target's number, pair with an imaginary zero.
  std::array<Stage, 5> stage;
};

[[nodiscard]] Recipe make_recipe(const CopyJob& job) noexcept;

/// Between the component types of two castable types; adds none, one or two stages.
/// `numbers` of them make an element. Both are in kNumberOf.
void add_cast(Recipe& recipe, DType from, DType to, std::size_t numbers) noexcept;

/// Stages that change no type.
[[nodiscard]] Kernel swap_kernel(std::size_t width) noexcept;
[[nodiscard]] Kernel negate_kernel(DType dtype) noexcept;  // nullptr where negation changes nothing
/// `width` is that of a component; both kernels take pairs.
[[nodiscard]] Kernel conjugate_kernel(std::size_t width, bool negate) noexcept;

}  // namespace dlbridge::detail
