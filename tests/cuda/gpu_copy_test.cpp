// The device's threads, one after another on the host, against the host's own copy: the same source
// is compiled for both. No CUDA is needed. (On the host a word at an address that the device would
// fault on ends the program.)

#include "gpu_copy.hpp"

#include <gtest/gtest.h>

#include <set>

#include "random_jobs.hpp"

namespace dlbridge::cuda {
namespace {

using random_jobs::Bytes;
using random_jobs::Generator;
using random_jobs::Job;

struct PutWord {
  template <class Word>
  void operator()(const DeviceCopy&, std::byte* target, Word word) const {
    store_word(target, word);
  }
};

struct PutChanged {
  template <class Word>
  void operator()(const DeviceCopy& copy, std::byte* target, Word word) const {
    store_lane(target, changed(copy.change, lane_of(word)), copy.target_width, copy.target_aligned);
  }
};

struct Runs {
  int tiled = 0;
  int wide = 0;  // words of 16 bytes
  int scattered = 0;
  int contiguous = 0;
};
Runs runs;

constexpr unsigned kFewThreads = 5;

template <class Word, class Put>
void run_words(const DeviceCopy& copy, bool short_indices) {
  if (copy.tiled) {
    ++runs.tiled;
    std::vector<Word> shared(Tile<Word>::kWords);
    for (std::uint64_t tile = 0; tile < tiles_of<Word>(copy); ++tile) {
      const TilePlace place = tile_place<Word>(copy, tile, short_indices);
      for (unsigned thread = 0; thread < kThreads; ++thread) {
        read_tile(copy, place, thread, shared.data());
      }
      for (unsigned thread = 0; thread < kThreads; ++thread) {
        write_tile(copy, place, thread, shared.data(), Put{});
      }
    }
    return;
  }
  for (unsigned thread = 0; thread < kFewThreads; ++thread) {
    if (short_indices) {
      copy_words<Word, std::uint32_t>(copy, thread, kFewThreads, Put{});
    } else {
      copy_words<Word, std::uint64_t>(copy, thread, kFewThreads, Put{});
    }
  }
}

template <class Put>
void run(const DeviceCopy& copy, bool short_indices) {
  switch (copy.source_width) {
    case 1:
      return run_words<std::uint8_t, Put>(copy, short_indices);
    case 2:
      return run_words<std::uint16_t, Put>(copy, short_indices);
    case 4:
      return run_words<std::uint32_t, Put>(copy, short_indices);
    case 8:
      return run_words<std::uint64_t, Put>(copy, short_indices);
    case 16:
      ++runs.wide;
      return run_words<Lane, Put>(copy, short_indices);
    default:
      FAIL() << "words of " << copy.source_width << " bytes";
  }
}

// What copy_elements() of the CUDA runtime does, one thread at a time.
void run_on_host(const CopyJob& job, bool short_indices) {
  const DeviceCopy copy = cut_for_device(job);
  if (copy.words == 0) {
    return;
  }
  ASSERT_TRUE(has_short_indices(copy));
  if (!copy.changes) {
    if (copy.contiguous) {
      ++runs.contiguous;  // the runtime's memcpy; the loops must do as well
    }
    run<PutWord>(copy, short_indices);
  } else if (copy.source_aligned && (copy.tiled || short_indices)) {
    run<PutChanged>(copy, short_indices);
  } else {
    ++runs.scattered;
    for (unsigned thread = 0; thread < kFewThreads; ++thread) {
      copy_scattered(copy, thread, kFewThreads, PutChanged{});
    }
  }
}

void expect_as_host(const Job& job, bool short_indices) {
  Bytes got = job.target.memory;
  run_on_host(job.at(job.source.memory.data(), got.data()), short_indices);
  if (!::testing::Test::HasFatalFailure()) {
    expect_same(job, copied_by_host(job), std::move(got));
  }
}

TEST(device_copy, every_pair_of_types_in_any_layout_is_as_on_the_host) {
  random_jobs::of_every_pair_of_types(
      11, 1200, {6, 400}, [](const Job& job, int round) { expect_as_host(job, round % 3 != 0); });
}

TEST(device_copy, every_width_in_any_layout_is_as_on_the_host) {
  runs = {};
  random_jobs::of_every_width(
      12, {300, 3000}, [](const Job& job, int round) { expect_as_host(job, round % 5 != 0); });
  EXPECT_GT(runs.tiled, 0);
  EXPECT_GT(runs.wide, 0);
  EXPECT_GT(runs.scattered, 0);
  EXPECT_GT(runs.contiguous, 0);
}

TEST(device_copy, elements_of_any_size_are_as_on_the_host) {
  random_jobs::of_any_size(13, {60, 300},
                           [](const Job& job, int round) { expect_as_host(job, round % 4 != 0); });
}

TEST(device_copy, transposes_go_by_tiles_and_are_as_on_the_host) {
  random_jobs::transposed(
      14, {{64, 64}, {65, 63}, {16, 200}, {200, 16}, {33, 1, 31}, {20, 3, 40}, {129, 2, 2, 70}},
      [](const Job& job, int round) {
        runs = {};
        expect_as_host(job, true);
        if (round == 0) {
          EXPECT_EQ(runs.tiled, 1) << ::testing::PrintToString(job.shape);
        }
      });
}

TEST(device_copy, as_many_dimensions_as_dlpack_allows) {
  Generator random(15);
  CopyJob flags;
  flags.source_dtype = flags.target_dtype = {kDLFloat, 32};
  std::vector<std::int64_t> shape(64, 1);
  for (const std::size_t dim : {0, 9, 10, 20, 31, 32, 40, 50, 55, 62, 63}) {
    shape[dim] = 2;
  }
  expect_as_host(random.transpose(flags, shape, true), true);
}

TEST(device_copy, rows_are_cut_into_the_widest_words_that_both_sides_are_aligned_to) {
  alignas(16) std::array<std::byte, 4096> memory{};
  const std::vector<std::int64_t> shape = {8, 24};
  const auto width = [&](std::int64_t source_pitch, std::int64_t target_pitch,
                         std::size_t source_at) {
    const std::vector<std::int64_t> source = {source_pitch, 4};
    const std::vector<std::int64_t> target = {target_pitch, 4};
    CopyJob job;
    job.ndim = 2;
    job.shape = shape.data();
    job.source = memory.data() + source_at;
    job.source_strides_bytes = source.data();
    job.target = memory.data() + 2048;
    job.target_strides_bytes = target.data();
    job.source_dtype = job.target_dtype = {kDLFloat, 32};
    return cut_for_device(job).source_width;
  };
  EXPECT_EQ(width(112, 128, 0), 16);
  EXPECT_EQ(width(104, 128, 0), 8);
  EXPECT_EQ(width(100, 128, 0), 4);
  EXPECT_EQ(width(112, 98, 0), 2);
  EXPECT_EQ(width(112, 128, 8), 8);
  EXPECT_EQ(width(112, 128, 1), 1);
}

TEST(device_copy, nothing_to_copy_is_no_words) {
  const std::int64_t shape[] = {3, 0};
  const std::int64_t strides[] = {INT64_MAX, INT64_MIN};
  CopyJob job;
  job.ndim = 2;
  job.shape = shape;
  job.source_strides_bytes = job.target_strides_bytes = strides;
  job.source_dtype = job.target_dtype = {kDLFloat, 32};
  EXPECT_EQ(cut_for_device(job).words, 0U);
}

TEST(device_loops, divide_by_multiplying) {
  Generator random(16);
  constexpr std::uint32_t kLast = (1U << 31) - 1;
  std::vector<std::uint32_t> numbers = {0,   1,     2,     3,     5,         7,
                                        641, 65535, 65536, 65537, kLast - 1, kLast};
  for (int i = 0; i < 300; ++i) {
    numbers.push_back(static_cast<std::uint32_t>(random.number(0, kLast >> random.number(0, 30))));
  }
  for (const std::uint32_t extent : numbers) {
    if (extent == 0) {
      continue;
    }
    const DeviceLoop loop = device_loop(extent, 1, 1);
    for (const std::uint32_t number : numbers) {
      ASSERT_EQ(quotient(number, loop), number / extent) << number << " / " << extent;
      for (const std::uint32_t beside : {number / extent * extent, number / extent * extent - 1}) {
        if (beside <= kLast) {
          ASSERT_EQ(quotient(beside, loop), beside / extent) << beside << " / " << extent;
        }
      }
    }
  }
}

TEST(device_loops, reach_words_beyond_32_bits) {
  DeviceCopy copy;
  copy.loops = 2;
  const std::uint64_t rows = 3;
  const std::uint64_t columns = (std::uint64_t{1} << 32) + 5;
  copy.loop[0] = device_loop(rows, -7, 11);
  copy.loop[1] = device_loop(columns, 2, 16);
  copy.words = rows * columns;
  EXPECT_FALSE(has_short_indices(copy));
  const Offsets last = offsets_of(copy, copy.words - 1);
  EXPECT_EQ(last.source, 2 * -7 + static_cast<std::int64_t>(columns - 1) * 2);
  EXPECT_EQ(last.target, 2 * 11 + static_cast<std::int64_t>(columns - 1) * 16);
}

template <class Word>
void expect_no_bank_conflicts() {
  // The hardware takes as many lanes at once as fill the 32 banks of 4 bytes.
  const std::uint32_t at_once = sizeof(Word) <= 4 ? 32 : 128 / sizeof(Word);
  for (const std::uint32_t step : {Tile<Word>::kPitch, 1U}) {
    std::set<std::uint32_t> banks;
    std::set<std::uint32_t> words;
    for (std::uint32_t lane = 0; lane < at_once; ++lane) {
      const auto byte = static_cast<std::uint32_t>(lane * step * sizeof(Word));
      banks.insert(byte / 4 % 32);
      words.insert(byte / 4);
    }
    EXPECT_EQ(banks.size(), words.size()) << sizeof(Word) << " bytes, step " << step;
  }
}

TEST(tiles, have_no_bank_conflicts) {
  expect_no_bank_conflicts<std::uint8_t>();
  expect_no_bank_conflicts<std::uint16_t>();
  expect_no_bank_conflicts<std::uint32_t>();
  expect_no_bank_conflicts<std::uint64_t>();
  expect_no_bank_conflicts<Lane>();
}

}  // namespace
}  // namespace dlbridge::cuda
