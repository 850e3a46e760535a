// The stages that change the type.

#include <bit>
#include <limits>
#include <type_traits>

#include "copy/numbers.hpp"
#include "copy/recipe.hpp"
#include "copy/simd.hpp"

#ifdef DLBRIDGE_HAS_AVX2
#include <immintrin.h>
#endif

namespace dlbridge::detail {
namespace {

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

template <std::size_t kTo, std::size_t... kFrom>
constexpr std::array<KernelPair, kPlainRows> casts_to(std::index_sequence<kFrom...>) {
  return {kKernels<Cast<HeldIn<kTo>, HeldIn<kFrom>>>...};
}

// By row: [to][from].
constexpr auto kCasts = []<std::size_t... kTo>(std::index_sequence<kTo...> rows) {
  return std::array{casts_to<kTo>(rows)...};
}
(std::make_index_sequence<kPlainRows>());

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

/// To float and back.
struct Codec {
  KernelPair decode;
  KernelPair encode;
};

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

constexpr Codec kFloat16 = {{kKernels<DecodeFloat16>.baseline, decode_float16_f16c},
                            {kKernels<EncodeFloat16>.baseline, encode_float16_f16c}};
#else
constexpr Codec kFloat16 = {kKernels<DecodeFloat16>, kKernels<EncodeFloat16>};
#endif

DLBRIDGE_INLINE std::uint16_t float16_code(double value) {
  return static_cast<std::uint16_t>(float16_from_double(value));
}

template <std::size_t kRow>
constexpr Codec codec_of_row() {
  using Format = HeldIn<kRow>;
  if constexpr (std::is_same_v<Format, Float16>) {
    return kFloat16;
  } else {
    constexpr bool kByte = dtype_named(std::get<kRow>(kNumbers).name)->bits == 8;
    using Code = std::conditional_t<kByte, std::uint8_t, std::uint16_t>;
    return {kKernels<Map<float, Code, decoded<Format, Code>>>,
            kKernels<Map<Code, float, encoded<Format, Code>>>};
  }
}

// By row behind the plain ones.
constexpr auto kCodecs = []<std::size_t... kSmall>(std::index_sequence<kSmall...>) {
  return std::array{codec_of_row<kPlainRows + kSmall>()...};
}
(std::make_index_sequence<kNumberRows - kPlainRows>());

const Codec& codec_of(Number small) {
  return kCodecs[static_cast<std::size_t>(small) - kPlainRows];
}

}  // namespace

void add_cast(Recipe& recipe, DType from, DType to, std::size_t numbers) noexcept {
  const Number source = kNumberOf[from];
  const Number target = kNumberOf[to];
  const std::size_t width = to.bits / (to.is(kDLComplex) ? 16U : 8U);
  const auto add = [&](KernelPair kernel, std::size_t number_width) {
    recipe.stage[recipe.stages++] = Stage{kernel.best(), numbers, number_width * numbers};
  };
  if (source == target) {
    return;
  }
  if (source == kNumber<double> && target == kNumber<Float16>) {
    add(kKernels<Map<std::uint16_t, double, float16_code>>, width);
    return;
  }
  if (!is_plain(source)) {
    add(codec_of(source).decode, sizeof(float));
  }
  const Number from_plain = is_plain(source) ? source : kNumber<float>;
  const Number to_plain = is_plain(target) ? target : kNumber<float>;
  if (from_plain != to_plain) {
    add(kCasts[static_cast<std::size_t>(to_plain)][static_cast<std::size_t>(from_plain)],
        is_plain(target) ? width : sizeof(float));
  }
  if (!is_plain(target)) {
    add(codec_of(target).encode, width);
  }
}

}  // namespace dlbridge::detail
