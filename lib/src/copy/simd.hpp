#pragma once

#include <cstddef>
#include <cstring>

#include "memory/found.hpp"

/// Loops that the compiler vectorises: built once for the baseline and once for AVX2 where that is
/// a question, with the choice made at run time (float16 conversion, F16C, counts as part of AVX2).
/// A loop is a class with a static `run`. All that it calls must be inline for good: what is
/// compiled on its own is compiled for the baseline.
#if defined(__GNUC__)
#define DLBRIDGE_INLINE [[gnu::always_inline]] inline
#else
#define DLBRIDGE_INLINE inline
#endif

#if defined(__GNUC__) && defined(__x86_64__) && !defined(DLBRIDGE_BASELINE_ONLY)
#include <cpuid.h>
#define DLBRIDGE_HAS_AVX2 1
#define DLBRIDGE_AVX2 [[gnu::target("avx2")]]
#else
#define DLBRIDGE_AVX2
#endif

namespace dlbridge::detail {

#ifdef DLBRIDGE_HAS_AVX2
inline bool processor_has_avx2() noexcept {
  // Not every compiler's __builtin_cpu_supports knows F16C.
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0 &&
         __builtin_cpu_supports("avx2") != 0;
}
#endif

inline bool has_avx2() noexcept {
#ifdef DLBRIDGE_HAS_AVX2
  return found<processor_has_avx2>() != 0;
#else
  return false;
#endif
}

template <class Loop, class... Args>
auto run_baseline(Args... args) {
  return Loop::run(args...);
}

template <class Loop, class... Args>
DLBRIDGE_AVX2 auto run_avx2(Args... args) {
  return Loop::run(args...);
}

template <class Loop, class... Args>
void run_best(Args... args) {
  has_avx2() ? run_avx2<Loop>(args...) : run_baseline<Loop>(args...);
}

// Tensors may lie at any address; memcpy of a fixed size is one unaligned move.
template <class T>
[[nodiscard]] DLBRIDGE_INLINE T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
DLBRIDGE_INLINE void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

/// The loop of nearly every kernel: of those whose target holds every value of the source.
template <class To, class From, To (*kFunction)(From)>
struct Map {
  DLBRIDGE_INLINE static bool run(std::byte* __restrict to, const std::byte* __restrict from,
                                  std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      store<To>(to + i * sizeof(To), kFunction(load<From>(from + i * sizeof(From))));
    }
    return true;
  }
};

}  // namespace dlbridge::detail
