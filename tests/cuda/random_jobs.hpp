#pragma once

// Copy jobs at random, for the host's copy and the device's to agree on.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "dlbridge/copy.hpp"
#include "lib/copy/copy_reference.hpp"

namespace dlbridge::random_jobs {

using Bytes = std::vector<std::byte>;

/// One side's memory, its strides in bytes, and where its element of index zero is.
struct Side {
  Bytes memory;
  std::vector<std::int64_t> strides;
  std::size_t origin = 0;
};

struct Job {
  std::vector<std::int64_t> shape;
  Side source;
  Side target;
  CopyJob flags;  // types and flags

  /// With the sides at these addresses; borrows from this.
  [[nodiscard]] CopyJob at(const std::byte* source_memory, std::byte* target_memory) const {
    CopyJob job = flags;
    job.ndim = static_cast<std::int32_t>(shape.size());
    job.shape = shape.data();
    job.source = source_memory + source.origin;
    job.source_strides_bytes = source.strides.data();
    job.target = target_memory + target.origin;
    job.target_strides_bytes = target.strides.data();
    return job;
  }
};

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : bits_(seed) {}

  std::int64_t number(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(bits_);
  }
  bool one_in(std::int64_t n) { return number(1, n) == 1; }

  /// Any layout of about that many elements; `aligned`: as libraries make them, else now and then
  /// at any byte.
  Job job(CopyJob flags, int ndim, std::int64_t elements, bool aligned) {
    Job job;
    job.flags = flags;
    for (int i = 0; i < ndim; ++i) {
      const std::int64_t most = std::max<std::int64_t>(1, elements);
      job.shape.push_back(one_in(60)  ? 0
                          : one_in(3) ? number(1, std::min<std::int64_t>(most, 4))
                                      : number(1, most));
      elements /= std::max<std::int64_t>(1, job.shape.back());
    }
    std::shuffle(job.shape.begin(), job.shape.end(), bits_);
    lay_out(job.source, job.shape, flags.source_dtype.itemsize(), aligned);
    lay_out(job.target, job.shape, flags.target_dtype.itemsize(), aligned);
    for (auto& stride : job.source.strides) {
      stride = one_in(12) ? 0 : stride;
    }
    allocate(job.source, job.shape, flags.source_dtype.itemsize(), aligned);
    allocate(job.target, job.shape, flags.target_dtype.itemsize(), aligned);
    fill(flags.source_dtype, job.source.memory);
    return job;
  }

  /// Rows and columns exchanged: the target's innermost dimension is the source's outermost.
  Job transpose(CopyJob flags, std::vector<std::int64_t> shape, bool aligned) {
    Job job;
    job.flags = flags;
    job.shape = std::move(shape);
    std::int64_t step = flags.source_dtype.itemsize();
    for (const std::int64_t extent : job.shape) {
      job.source.strides.push_back(step);
      step *= extent;
    }
    job.target.strides.resize(job.shape.size());
    step = flags.target_dtype.itemsize();
    for (std::size_t i = job.shape.size(); i-- > 0;) {
      job.target.strides[i] = step;
      step *= job.shape[i];
    }
    allocate(job.source, job.shape, flags.source_dtype.itemsize(), aligned);
    allocate(job.target, job.shape, flags.target_dtype.itemsize(), aligned);
    fill(flags.source_dtype, job.source.memory);
    return job;
  }

  CopyJob flags(DType from, DType to) {
    CopyJob flags;
    flags.source_dtype = from;
    flags.target_dtype = to;
    flags.conjugate = one_in(3);
    flags.negate = one_in(3);
    flags.swap_bytes = one_in(3);
    return flags;
  }

 private:
  void lay_out(Side& side, const std::vector<std::int64_t>& shape, std::int64_t itemsize,
               bool aligned) {
    std::vector<std::size_t> order(shape.size());
    std::iota(order.rbegin(), order.rend(), std::size_t{0});
    if (!one_in(3)) {
      std::shuffle(order.begin(), order.end(), bits_);
    }
    side.strides.resize(shape.size());
    std::int64_t step = itemsize;
    for (const std::size_t dim : order) {
      step += one_in(5) ? (aligned ? itemsize * number(1, 3) : number(1, 9)) : 0;
      side.strides[dim] = one_in(4) ? -step : step;
      step *= std::max<std::int64_t>(1, shape[dim]);
    }
  }

  void allocate(Side& side, const std::vector<std::int64_t>& shape, std::int64_t itemsize,
                bool aligned) {
    std::int64_t low = 0;
    std::int64_t high = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      const std::int64_t reach = std::max<std::int64_t>(shape[i] - 1, 0) * side.strides[i];
      (reach < 0 ? low : high) += reach;
    }
    const std::int64_t margin = aligned ? itemsize * number(0, 9) : number(0, 70);
    side.origin = static_cast<std::size_t>(margin - low);
    side.memory.resize(static_cast<std::size_t>(margin - low + high + itemsize + number(0, 70)));
    for (auto& byte : side.memory) {
      byte = static_cast<std::byte>(bits_());
    }
  }

  // Random bits are mostly out of the range of smaller types; put in numbers of common size.
  void fill(DType dtype, Bytes& memory) {
    using namespace copy_reference;
    const DType part = part_of(dtype);
    if (!is_small_float(part) && !part.is(kDLFloat)) {
      return;
    }
    const std::size_t width = part.bits / 8U;
    for (std::size_t at = 0; at + width <= memory.size(); at += width) {
      if (number(0, 9) < 7 && part.bits <= 64) {
        Number n;
        n.r =
            std::ldexp(static_cast<double>(number(-4096, 4096)), static_cast<int>(number(-24, 12)));
        n.r += one_in(2) ? 0 : std::ldexp(n.r, -static_cast<int>(number(10, 52)));
        write(part, memory.data() + at, n);
      }
    }
  }

  std::mt19937_64 bits_;
};

/// What the host's copy makes of the target's memory.
inline Bytes copied_by_host(const Job& job) {
  Bytes target = job.target.memory;
  copy_elements(job.at(job.source.memory.data(), target.data()));
  return target;
}

/// All of the target's memory must be the same, gaps and margins included. After a cast the bits of
/// a NaN may differ.
inline void expect_same(const Job& job, const Bytes& wanted, Bytes got) {
  using namespace copy_reference;
  const DType part = part_of(job.flags.target_dtype);
  if (job.flags.source_dtype != job.flags.target_dtype &&
      (is_small_float(part) || part.is(kDLFloat))) {
    std::int64_t elements = 1;
    for (const std::int64_t extent : job.shape) {
      elements *= extent;
    }
    const auto width = static_cast<std::int64_t>(part.bits / 8);
    for (std::int64_t n = 0; n < elements; ++n) {
      auto place = static_cast<std::int64_t>(job.target.origin);
      std::int64_t rest = n;
      for (std::size_t i = job.shape.size(); i-- > 0;) {
        place += rest % job.shape[i] * job.target.strides[i];
        rest /= job.shape[i];
      }
      for (std::int64_t at = 0; at < job.flags.target_dtype.itemsize(); at += width) {
        const std::byte* wanted_number = wanted.data() + place + at;
        std::byte* got_number = got.data() + place + at;
        if (std::isnan(read(part, wanted_number).r) && std::isnan(read(part, got_number).r)) {
          std::memcpy(got_number, wanted_number, static_cast<std::size_t>(width));
        }
      }
    }
  }
  const auto different = std::mismatch(wanted.begin(), wanted.end(), got.begin());
  ASSERT_EQ(different.first, wanted.end())
      << "byte " << different.first - wanted.begin() << " of " << wanted.size() << ", element 0 at "
      << job.target.origin << "; " << to_string(job.flags.source_dtype) << " to "
      << to_string(job.flags.target_dtype) << " shape " << ::testing::PrintToString(job.shape)
      << " source " << ::testing::PrintToString(job.source.strides) << " target "
      << ::testing::PrintToString(job.target.strides) << " swap " << job.flags.swap_bytes
      << " conj " << job.flags.conjugate << " neg " << job.flags.negate;
}

/// How many jobs of a kind, and of how many elements at most.
struct Much {
  int rounds;
  std::int64_t elements;
};

// Each of these calls check(job, round) for its jobs, until one fails.

/// A row of every pair of types that has a cast, and other layouts of it.
template <typename Check>
void of_every_pair_of_types(std::uint64_t seed, std::int64_t row, Much much, const Check& check) {
  Generator random(seed);
  for (const auto& from : kNamedDTypes) {
    for (const auto& to : kNamedDTypes) {
      if (!can_cast(from.dtype, to.dtype)) {
        continue;
      }
      CopyJob plain;
      plain.source_dtype = from.dtype;
      plain.target_dtype = to.dtype;
      check(random.job(plain, 1, row, true), 1);
      for (int round = 0; round < much.rounds; ++round) {
        const CopyJob flags = random.flags(from.dtype, to.dtype);
        check(random.job(flags, 1 + round % 5, much.elements, round % 2 == 0), round);
      }
      if (::testing::Test::HasFatalFailure()) {
        return;
      }
    }
  }
}

/// Elements of every width that is moved as one word, in any layout.
template <typename Check>
void of_every_width(std::uint64_t seed, Much much, const Check& check) {
  Generator random(seed);
  for (const DType type : {DType{kDLUInt, 8}, DType{kDLInt, 16}, DType{kDLFloat, 32},
                           DType{kDLComplex, 64}, DType{kDLComplex, 128}}) {
    for (int round = 0; round < much.rounds && !::testing::Test::HasFatalFailure(); ++round) {
      CopyJob flags = random.flags(type, type);
      if (round % 2 == 0) {
        flags = CopyJob{};
        flags.source_dtype = flags.target_dtype = type;
      }
      check(random.job(flags, round % 9, much.elements, round % 3 != 0), round);
    }
  }
}

/// Elements of types that no cast knows, of any size.
template <typename Check>
void of_any_size(std::uint64_t seed, Much much, const Check& check) {
  Generator random(seed);
  for (const DType type :
       {DType{kDLUInt, 8, 3}, DType{kDLFloat, 64, 3}, DType{kDLFloat, 32, 4}, DType{99, 24},
        DType{kDLFloat4_e2m1fn, 4, 2}, DType{kDLFloat, 128}, DType{kDLComplex, 64, 2},
        DType{kDLFloat6_e2m3fn, 6, 4}, DType{kDLInt, 16, 31}, DType{kDLOpaqueHandle, 64},
        DType{kDLFloat, 32, 3}}) {
    for (int round = 0; round < much.rounds && !::testing::Test::HasFatalFailure(); ++round) {
      CopyJob flags;
      flags.source_dtype = flags.target_dtype = type;
      flags.swap_bytes = round % 3 == 0;
      check(random.job(flags, round % 5, much.elements, round % 2 == 0), round);
    }
  }
}

/// These shapes turned over, as libraries make them (round 0) and at any byte (round 1).
template <typename Check>
void transposed(std::uint64_t seed, const std::vector<std::vector<std::int64_t>>& shapes,
                const Check& check) {
  Generator random(seed);
  for (const auto& [from, to] : {std::pair<DType, DType>{{kDLUInt, 8}, {kDLUInt, 8}},
                                 {{kDLBfloat, 16}, {kDLBfloat, 16}},
                                 {{kDLFloat, 32}, {kDLFloat, 32}},
                                 {{kDLFloat, 64}, {kDLFloat, 64}},
                                 {{kDLComplex, 128}, {kDLComplex, 128}},
                                 {{kDLUInt, 8}, {kDLFloat, 32}},
                                 {{kDLFloat, 32}, {kDLBfloat, 16}},
                                 {{kDLFloat, 64}, {kDLComplex, 128}}}) {
    for (const auto& shape : shapes) {
      CopyJob flags;
      flags.source_dtype = from;
      flags.target_dtype = to;
      flags.negate = shape.size() == 3;
      for (const int round : {0, 1}) {
        check(random.transpose(flags, shape, round == 0), round);
      }
      if (::testing::Test::HasFatalFailure()) {
        return;
      }
    }
  }
}

}  // namespace dlbridge::random_jobs
