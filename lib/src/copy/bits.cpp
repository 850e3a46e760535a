// The stages that keep the type: byte order, sign, conjugate.

#include "copy/numbers.hpp"
#include "copy/recipe.hpp"
#include "copy/simd.hpp"

namespace dlbridge::detail {
namespace {

template <class U>
DLBRIDGE_INLINE U swapped(U value) {
  // Compilers know this for what it is, also when they vectorise the loop around it.
  U result = 0;
  for (std::size_t i = 0; i < sizeof(U); ++i) {
    result = static_cast<U>((result << 8) | ((value >> (8 * i)) & 0xff));
  }
  return result;
}

template <>
DLBRIDGE_INLINE std::uint8_t swapped(std::uint8_t value) {
  return value;
}

template <class U>
constexpr U kSignBit = static_cast<U>(U{1} << (8 * sizeof(U) - 1));

template <class U>
DLBRIDGE_INLINE U negated_int(U value) {
  return static_cast<U>(U{0} - value);
}

template <class U>
DLBRIDGE_INLINE U negated_float(U value) {
  return static_cast<U>(value ^ kSignBit<U>);
}

// The code of a negative zero is NaN there: zero and NaN have no sign to flip.
DLBRIDGE_INLINE std::uint8_t negated_fnuz(std::uint8_t value) {
  return static_cast<std::uint8_t>(value ^ ((value & 0x7f) != 0 ? 0x80 : 0));
}

// It has no negative values: NaN, as in ml_dtypes.
DLBRIDGE_INLINE std::uint8_t negated_e8m0(std::uint8_t) {
  return 0xff;
}

template <class U, bool kNegate>
struct ConjugateLoop {
  DLBRIDGE_INLINE static bool run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    // Conjugated and negated the imaginary part is as it was.
    constexpr U kReal = kNegate ? kSignBit<U> : U{0};
    constexpr U kImaginary = kNegate ? U{0} : kSignBit<U>;
    for (std::size_t i = 0; i < 2 * count; i += 2) {
      const std::byte* real = from + i * sizeof(U);
      store<U>(to + i * sizeof(U), static_cast<U>(load<U>(real) ^ kReal));
      store<U>(to + (i + 1) * sizeof(U), static_cast<U>(load<U>(real + sizeof(U)) ^ kImaginary));
    }
    return true;
  }
};

template <class U>
using Swap = Map<U, U, swapped<U>>;
template <class U>
using NegateInt = Map<U, U, negated_int<U>>;
template <class U>
using NegateFloat = Map<U, U, negated_float<U>>;
template <class U>
using Conjugate = ConjugateLoop<U, false>;
template <class U>
using ConjugateAndNegate = ConjugateLoop<U, true>;

template <template <class> class Loop>
Kernel of_width(std::size_t width) {
  switch (width) {
    case 1:
      return kKernels<Loop<std::uint8_t>>.best();
    case 2:
      return kKernels<Loop<std::uint16_t>>.best();
    case 4:
      return kKernels<Loop<std::uint32_t>>.best();
    case 8:
      return kKernels<Loop<std::uint64_t>>.best();
    default:
      return nullptr;
  }
}

}  // namespace

Kernel swap_kernel(std::size_t width) noexcept {
  return width == 1 ? nullptr : of_width<Swap>(width);
}

Kernel negate_kernel(DType dtype) noexcept {
  const auto width = static_cast<std::size_t>(dtype.bits / (dtype.is(kDLComplex) ? 16 : 8));
  switch (negation_of(dtype)) {
    case Sign::kMinus:
      return of_width<NegateInt>(width);
    case Sign::kFlip:
      return of_width<NegateFloat>(width);
    case Sign::kFlipUnlessZero:
      return kKernels<Map<std::uint8_t, std::uint8_t, negated_fnuz>>.best();
    case Sign::kNan:
      return kKernels<Map<std::uint8_t, std::uint8_t, negated_e8m0>>.best();
    case Sign::kKeep:
      break;
  }
  return nullptr;  // truth values, handles, sub-byte types
}

Kernel conjugate_kernel(std::size_t width, bool negate) noexcept {
  return negate ? of_width<ConjugateAndNegate>(width) : of_width<Conjugate>(width);
}

}  // namespace dlbridge::detail
