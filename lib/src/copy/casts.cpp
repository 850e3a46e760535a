// The stages that change the type.

#include <algorithm>
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

template <class Bits>
constexpr Bits kTopBit = Bits{1} << (8 * sizeof(Bits) - 1);

// By way of the integers that NumPy takes on x86; what those do not hold becomes the least of them.
template <class To, class From>
DLBRIDGE_INLINE To wrapped(From value) {
  constexpr bool kWide = sizeof(To) == 8 || std::is_same_v<To, std::uint32_t>;
  using Via = std::conditional_t<kWide, std::int64_t, std::int32_t>;
  constexpr From kEnd = kWide ? 9223372036854775808.0F : 2147483648.0F;
  if constexpr (std::is_same_v<To, std::uint64_t>) {
    if (value >= kEnd) {
      return static_cast<To>(wrapped<Via>(value - kEnd)) + (To{1} << 63);
    }
  }
  const bool fits = value >= -kEnd && value < kEnd;
  return static_cast<To>(fits ? static_cast<Via>(value) : std::numeric_limits<Via>::min());
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

/// Which integers `To` does not hold: those in which kBits are set once kShift is added.
template <class To, class From>
struct Outside {
  using Bits = std::make_unsigned_t<From>;
  using Of = std::numeric_limits<From>;
  using In = std::numeric_limits<To>;
  static constexpr bool kBothSigned = Of::is_signed && In::is_signed;
  static constexpr bool kSome = Of::digits > In::digits || (Of::is_signed && !In::is_signed);
  static constexpr int kHeld = kBothSigned ? In::digits + 1 : std::min(Of::digits, In::digits);
  static constexpr Bits kShift = kSome && kBothSigned ? Bits{1} << In::digits : Bits{0};
  static constexpr Bits kBits = kSome ? static_cast<Bits>(~Bits{0} << kHeld) : Bits{0};

  DLBRIDGE_INLINE static Bits bits(From value) {
    return static_cast<Bits>(static_cast<Bits>(value) + kShift);
  }
};

/// Integers to integers that do not hold all of them.
template <class To, class From>
struct Narrow {
  DLBRIDGE_INLINE static bool run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    using Unheld = Outside<To, From>;
    typename Unheld::Bits met = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const From value = load<From>(from + i * sizeof(From));
      store<To>(to + i * sizeof(To), static_cast<To>(value));
      met |= Unheld::bits(value);
    }
    return (met & Unheld::kBits) == 0;
  }
};

/// Floats to integers. Vector instructions do what fits 32 bits signed; a block
/// in which something does not is done one by one.
template <class To, class From>
struct Truncate {
  DLBRIDGE_INLINE static bool run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    constexpr std::size_t kBlock = 64;
    bool fits = true;
    for (std::size_t done = 0; done < count; done += kBlock) {
      const std::size_t block = count - done < kBlock ? count - done : kBlock;
      fits &= run_block(to + done * sizeof(To), from + done * sizeof(From), block);
    }
    return fits;
  }

  DLBRIDGE_INLINE static bool run_block(std::byte* __restrict to, const std::byte* __restrict from,
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
      return run_one_by_one(to, from, count);
    }
    using Unheld = Outside<To, std::int32_t>;
    std::uint32_t met = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = static_cast<std::int32_t>(load<From>(from + i * sizeof(From)));
      store<To>(to + i * sizeof(To), static_cast<To>(value));
      met |= Unheld::bits(value);
    }
    return (met & Unheld::kBits) == 0;
  }

  DLBRIDGE_INLINE static bool run_one_by_one(std::byte* __restrict to,
                                             const std::byte* __restrict from, std::size_t count) {
    constexpr From kEnd = 2 * static_cast<From>(To{1} << (std::numeric_limits<To>::digits - 1));
    constexpr From kLeast = std::is_signed_v<To> ? -kEnd : From{0};
    bool fits = true;
    for (std::size_t i = 0; i < count; ++i) {
      const From value = load<From>(from + i * sizeof(From));
      store<To>(to + i * sizeof(To), wrapped<To>(value));
      // What lies less than one below the least is cut off to it; the float before it may be that.
      fits &= value < kEnd && (value >= kLeast || value > kLeast - 1);
    }
    return fits;
  }
};

/// Whether the floats hold a finite one of that magnitude (as bits) or more.
template <class From, auto kTooLarge>
DLBRIDGE_INLINE bool overflows(const std::byte* from, std::size_t count) {
  using Bits = std::remove_const_t<decltype(kTooLarge)>;
  constexpr auto kInfinity = std::bit_cast<Bits>(std::numeric_limits<From>::infinity());
  bool met = false;
  for (std::size_t i = 0; i < count; ++i) {
    const Bits magnitude = load<Bits>(from + i * sizeof(From)) & ~kTopBit<Bits>;
    met |= magnitude >= kTooLarge && magnitude < kInfinity;
  }
  return met;
}

/// Floats to floats that do not hold all of them: kTooLarge is the least magnitude, as bits, that
/// becomes infinity or NaN. Infinity and NaN stay what they are; they are told apart where met.
template <class To, class From, To (*kFunction)(From), auto kTooLarge>
struct Shorten {
  DLBRIDGE_INLINE static bool run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    using Bits = std::remove_const_t<decltype(kTooLarge)>;
    constexpr Bits kTop = kTopBit<Bits>;
    Bits met = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const From value = load<From>(from + i * sizeof(From));
      store<To>(to + i * sizeof(To), kFunction(value));
      met |= (std::bit_cast<Bits>(value) & ~kTop) + (kTop - kTooLarge);
    }
    return met < kTop || !overflows<From, kTooLarge>(from, count);
  }
};

/// Halfway from the largest float to the next: it becomes infinity.
constexpr auto kTooLargeForFloat = std::bit_cast<std::uint64_t>((2.0 - 0x1p-24) * 0x1p127);

template <class To, class From>
constexpr auto cast_of() {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    return Truncate<To, From>{};
  } else if constexpr (std::is_same_v<From, double> && std::is_same_v<To, float>) {
    return Shorten<To, From, converted<To, From>, kTooLargeForFloat>{};
  } else if constexpr (std::is_integral_v<From> && std::is_integral_v<To>) {
    return std::conditional_t<Outside<To, From>::kSome, Narrow<To, From>,
                              Map<To, From, converted<To, From>>>{};
  } else {
    return Map<To, From, converted<To, From>>{};
  }
}

template <class To, class From>
using Cast = decltype(cast_of<To, From>());

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

// The least magnitude of a float, as bits, that has no finite value in the format.
template <class Format>
constexpr std::uint32_t kTooLargeFor = [] {
  std::uint32_t held = std::bit_cast<std::uint32_t>(1.0F);
  std::uint32_t not_held = 0x7f800000U;
  while (not_held - held > 1) {
    const std::uint32_t middle = held + (not_held - held) / 2;
    const float back = Format::decode(Format::encode(std::bit_cast<float>(middle)));
    const bool finite = (std::bit_cast<std::uint32_t>(back) & 0x7fffffffU) < 0x7f800000U;
    (finite ? held : not_held) = middle;
  }
  return not_held;
}();

template <class Format, class Code>
using Decode = Map<float, Code, decoded<Format, Code>>;
template <class Format, class Code>
using Encode = Shorten<Code, float, encoded<Format, Code>, kTooLargeFor<Format>>;
using DecodeFloat16 = Decode<Float16, std::uint16_t>;
using EncodeFloat16 = Encode<Float16, std::uint16_t>;

#ifdef DLBRIDGE_HAS_AVX2
[[gnu::target("avx2,f16c")]] bool decode_float16_f16c(std::byte* to, const std::byte* from,
                                                      std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const auto codes = load<__m128i>(from + i * sizeof(std::uint16_t));
    _mm256_storeu_ps(reinterpret_cast<float*>(to + i * sizeof(float)), _mm256_cvtph_ps(codes));
  }
  return DecodeFloat16::run(to + i * sizeof(float), from + i * sizeof(std::uint16_t), count - i);
}

[[gnu::target("avx2,f16c")]] bool encode_float16_f16c(std::byte* to, const std::byte* from,
                                                      std::size_t count) {
  constexpr std::uint32_t kTooLarge = kTooLargeFor<Float16>;
  const __m256i magnitude = _mm256_set1_epi32(INT32_MAX);
  __m256i most = _mm256_setzero_si256();
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 values = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * sizeof(float)));
    store(to + i * sizeof(std::uint16_t), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
    most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(values), magnitude));
  }
  const __m256i too_large =
      _mm256_cmpgt_epi32(most, _mm256_set1_epi32(static_cast<int>(kTooLarge) - 1));
  const bool fits = _mm256_movemask_epi8(too_large) == 0 || !overflows<float, kTooLarge>(from, i);
  return EncodeFloat16::run(to + i * sizeof(std::uint16_t), from + i * sizeof(float), count - i) &&
         fits;
}

constexpr Codec kFloat16 = {{kKernels<DecodeFloat16>.baseline, decode_float16_f16c},
                            {kKernels<EncodeFloat16>.baseline, encode_float16_f16c}};
#else
constexpr Codec kFloat16 = {kKernels<DecodeFloat16>, kKernels<EncodeFloat16>};
#endif

DLBRIDGE_INLINE std::uint16_t float16_code(double value) {
  return static_cast<std::uint16_t>(float16_from_double(value));
}

constexpr auto kTooLargeForFloat16 = std::bit_cast<std::uint64_t>(65520.0);
using DoubleToFloat16 = Shorten<std::uint16_t, double, float16_code, kTooLargeForFloat16>;

template <std::size_t kRow>
constexpr Codec codec_of_row() {
  using Format = HeldIn<kRow>;
  if constexpr (std::is_same_v<Format, Float16>) {
    return kFloat16;
  } else {
    constexpr bool kByte = dtype_named(std::get<kRow>(kNumbers).name)->bits == 8;
    using Code = std::conditional_t<kByte, std::uint8_t, std::uint16_t>;
    return {kKernels<Decode<Format, Code>>, kKernels<Encode<Format, Code>>};
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
    add(kKernels<DoubleToFloat16>, width);
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
