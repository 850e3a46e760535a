// The stages that change the type.

#include <bit>
#include <limits>
#include <type_traits>

#include "copy/recipe.hpp"
#include "copy/float_formats.hpp"
#include "copy/simd.hpp"

#ifdef DLBRIDGE_HAS_AVX2
#include <immintrin.h>
#endif

namespace dlbridge::detail {
namespace {

// A bool of a tensor: any byte. (To load one that is neither 0 nor 1 as a C++ bool is undefined.)
enum class Truth : std::uint8_t {};

template <class To, class From>
DLBRIDGE_INLINE To wrapped(From value) {
  constexpr From kTwoTo63 = 9223372036854775808.0F;
  if constexpr (std::is_same_v<To, std::uint64_t>) {
    if (value >= kTwoTo63 && value < 2 * kTwoTo63) {
      return static_cast<std::uint64_t>(value - kTwoTo63) + (std::uint64_t{1} << 63);
    }
  }
  const bool fits = value >= -kTwoTo63 && value < kTwoTo63;
  return static_cast<To>(fits ? static_cast<std::int64_t>(value) : INT64_MIN);
}

template <class To, class From>
DLBRIDGE_INLINE To converted(From value) {
  if constexpr (std::is_same_v<From, Truth>) {
    return static_cast<To>(value != Truth{0} ? 1 : 0);
  } else if constexpr (std::is_same_v<To, Truth>) {
    return value != From{0} ? Truth{1} : Truth{0};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    return wrapped<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

/// Floats to integers. Vector instructions do what fits 32 bits signed; a block
/// in which something does not is done one by one.
template <class To, class From>
struct Truncate {
  DLBRIDGE_INLINE static void run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    constexpr std::size_t kBlock = 64;
    for (std::size_t done = 0; done < count; done += kBlock) {
      const std::size_t block = count - done < kBlock ? count - done : kBlock;
      run_block(to + done * sizeof(To), from + done * sizeof(From), block);
    }
  }

  DLBRIDGE_INLINE static void run_block(std::byte* __restrict to, const std::byte* __restrict from,
                                        std::size_t count) {
    // Compared as integers, which puts infinity and NaN above the rest and vectorises better.
    using Bits = std::conditional_t<sizeof(From) == 4, std::int32_t, std::int64_t>;
    constexpr auto kTwoTo31 = std::bit_cast<Bits>(static_cast<From>(2147483648.0F));
    Bits outside = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const Bits magnitude = load<Bits>(from + i * sizeof(From)) & std::numeric_limits<Bits>::max();
      outside |= magnitude >= kTwoTo31 ? Bits{1} : Bits{0};
    }
    if (outside != 0) {
      Map<To, From, wrapped<To, From>>::run(to, from, count);
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const From value = load<From>(from + i * sizeof(From));
      store<To>(to + i * sizeof(To), static_cast<To>(static_cast<std::int32_t>(value)));
    }
  }
};

template <class To, class From>
constexpr bool kTruncates = std::conjunction_v<std::is_floating_point<From>, std::is_integral<To>>;

template <class To, class From>
using Cast = std::conditional_t<kTruncates<To, From>, Truncate<To, From>,
                                Map<To, From, converted<To, From>>>;

template <class... Types>
struct TypeList {};

using Plain = TypeList<Truth, std::int8_t, std::int16_t, std::int32_t, std::int64_t, std::uint8_t,
                       std::uint16_t, std::uint32_t, std::uint64_t, float, double>;
constexpr std::size_t kFloat = 9;
constexpr std::size_t kDouble = 10;

template <class To, class... From>
constexpr std::array<KernelPair, sizeof...(From)> casts_to(TypeList<From...>) {
  return {kKernels<Cast<To, From>>...};
}

template <class... To>
constexpr auto all_casts(TypeList<To...> types) {
  return std::array{casts_to<To>(types)...};
}

// [to][from]
constexpr auto kCasts = all_casts(Plain{});

template <class Format>
struct FloatTable {
  static constexpr auto kValues = [] {
    std::array<float, 256> values{};
    for (std::uint32_t code = 0; code < 256; ++code) {
      values[code] = Format::decode(code);
    }
    return values;
  }();
};

template <class Format, class Code>
DLBRIDGE_INLINE float decoded(Code code) {
  if constexpr (sizeof(Code) == 1) {
    return FloatTable<Format>::kValues[code];
  } else {
    return Format::decode(code);
  }
}

template <class Format, class Code>
DLBRIDGE_INLINE Code encoded(float value) {
  return static_cast<Code>(Format::encode(value));
}

using DecodeFloat16 = Map<float, std::uint16_t, decoded<Float16, std::uint16_t>>;
using EncodeFloat16 = Map<std::uint16_t, float, encoded<Float16, std::uint16_t>>;

#ifdef DLBRIDGE_HAS_AVX2
[[gnu::target("avx2,f16c")]] void decode_float16_f16c(std::byte* to, const std::byte* from,
                                                      std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const auto codes = load<__m128i>(from + i * sizeof(std::uint16_t));
    _mm256_storeu_ps(reinterpret_cast<float*>(to + i * sizeof(float)), _mm256_cvtph_ps(codes));
  }
  DecodeFloat16::run(to + i * sizeof(float), from + i * sizeof(std::uint16_t), count - i);
}

[[gnu::target("avx2,f16c")]] void encode_float16_f16c(std::byte* to, const std::byte* from,
                                                      std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 values = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * sizeof(float)));
    store(to + i * sizeof(std::uint16_t), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
  }
  EncodeFloat16::run(to + i * sizeof(std::uint16_t), from + i * sizeof(float), count - i);
}

constexpr KernelPair kDecodeFloat16 = {kKernels<DecodeFloat16>.baseline, decode_float16_f16c};
constexpr KernelPair kEncodeFloat16 = {kKernels<EncodeFloat16>.baseline, encode_float16_f16c};
#else
constexpr KernelPair kDecodeFloat16 = kKernels<DecodeFloat16>;
constexpr KernelPair kEncodeFloat16 = kKernels<EncodeFloat16>;
#endif

DLBRIDGE_INLINE std::uint16_t float16_code(double value) {
  return static_cast<std::uint16_t>(float16_from_double(value));
}

/// How a number is held: either plain, or as a small float with float on either side of it.
struct Number {
  int plain = -1;
  KernelPair decode;
  KernelPair encode;
  std::size_t width = 0;
};

template <class Format, class Code>
constexpr Number small() {
  return {-1, kKernels<Map<float, Code, decoded<Format, Code>>>,
          kKernels<Map<Code, float, encoded<Format, Code>>>, sizeof(Code)};
}

constexpr Number kFloat16 = {-1, kDecodeFloat16, kEncodeFloat16, sizeof(std::uint16_t)};

constexpr Number plain(std::size_t index, int bits) {
  return {static_cast<int>(index), {}, {}, static_cast<std::size_t>(bits) / 8};
}

// Of the components, for complex types. A width of 0 where there is no such number.
Number number_of(DType dtype) {
  const int bits = dtype.is(kDLComplex) ? dtype.bits / 2 : dtype.bits;
  const auto by_size = [bits](std::size_t first) {
    switch (bits) {
      case 8:
        return plain(first, bits);
      case 16:
        return plain(first + 1, bits);
      case 32:
        return plain(first + 2, bits);
      case 64:
        return plain(first + 3, bits);
      default:
        return Number{};
    }
  };
  if (dtype.lanes != 1 || index_of(dtype) < 0 || bits < 8) {
    return {};
  }
  switch (dtype.code) {
    case kDLBool:
      return plain(0, bits);
    case kDLInt:
      return by_size(1);
    case kDLUInt:
      return by_size(5);
    case kDLFloat:
    case kDLComplex:
      return bits == 16 ? kFloat16 : bits == 32 ? plain(kFloat, bits) : plain(kDouble, bits);
    case kDLBfloat:
      return small<Bfloat16, std::uint16_t>();
    case kDLFloat8_e3m4:
      return small<Float8E3M4, std::uint8_t>();
    case kDLFloat8_e4m3:
      return small<Float8E4M3, std::uint8_t>();
    case kDLFloat8_e4m3b11fnuz:
      return small<Float8E4M3B11Fnuz, std::uint8_t>();
    case kDLFloat8_e4m3fn:
      return small<Float8E4M3Fn, std::uint8_t>();
    case kDLFloat8_e4m3fnuz:
      return small<Float8E4M3Fnuz, std::uint8_t>();
    case kDLFloat8_e5m2:
      return small<Float8E5M2, std::uint8_t>();
    case kDLFloat8_e5m2fnuz:
      return small<Float8E5M2Fnuz, std::uint8_t>();
    case kDLFloat8_e8m0fnu:
      return small<Float8E8M0, std::uint8_t>();
    default:
      return {};
  }
}

}  // namespace

bool is_number(DType dtype) noexcept {
  return number_of(dtype).width != 0;
}

void add_cast(Recipe& recipe, DType from, DType to, std::size_t numbers) noexcept {
  const Number source = number_of(from);
  const Number target = number_of(to);
  const auto add = [&](KernelPair kernel, std::size_t width) {
    recipe.stage[recipe.stages++] = Stage{kernel.best(), numbers, width * numbers};
  };
  if (source.decode == target.decode && source.plain == target.plain) {
    return;
  }
  if (source.plain == static_cast<int>(kDouble) && target.encode == kFloat16.encode) {
    add(kKernels<Map<std::uint16_t, double, float16_code>>, target.width);
    return;
  }
  if (source.plain < 0) {
    add(source.decode, sizeof(float));
  }
  const auto from_plain = source.plain < 0 ? kFloat : static_cast<std::size_t>(source.plain);
  const auto to_plain = target.plain < 0 ? kFloat : static_cast<std::size_t>(target.plain);
  if (from_plain != to_plain) {
    add(kCasts[to_plain][from_plain], target.plain < 0 ? sizeof(float) : target.width);
  }
  if (target.plain < 0) {
    add(target.encode, target.width);
  }
}

}  // namespace dlbridge::detail
