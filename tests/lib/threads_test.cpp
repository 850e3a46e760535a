// Sixteen threads cross, copy, export and drop the same sources.

#include "dlbridge/threads.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>
#include <vector>

#include "dlbridge/convert.hpp"
#include "dlbridge/copy.hpp"
#include "dlbridge/memory_pool.hpp"
#include "dlbridge/tensor_view.hpp"
#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"
#include "lib/sixteen_threads.hpp"

namespace dlbridge {
namespace {

using cases::as_type;
using cases::kHostOnly;
using doubles::Choices;
using doubles::cross_on_threads;
using doubles::Exchange;
using doubles::Legacy;
using doubles::on_threads;
using doubles::Versioned;

constexpr int kThreads = 16;

// A library whose tensors are managed tensors.
struct Shares {
  using Object = ManagedTensor;
  static void describe(const ManagedTensor& tensor, Source& source) {
    source.tensor = tensor.tensor();
    if (tensor.readonly()) {
      source.traits.conditions.add(Condition::kReadOnly);
    }
  }
  static ManagedTensor acquire(const ManagedTensor& tensor, Source& /*source*/) {
    return tensor.share();
  }
  static const Capabilities& capabilities(const Source& /*source*/) { return kHostOnly; }
  static ManagedTensor deliver(ManagedTensor tensor) { return tensor; }
};

// Memory that its last user spoils, which races with whoever still reads it.
ManagedTensor spoiled_at_the_end(std::atomic<int>& ended) {
  struct Memory {
    std::array<float, 6> floats{0, 1, 2, 3, 4, 5};
    std::atomic<int>* ended;
  };
  auto* memory = new Memory{.ended = &ended};
  std::array<std::int64_t, 2> shape{2, 3};
  DLTensor tensor{};
  tensor.data = memory->floats.data();
  tensor.device = Device{}.dl();
  tensor.ndim = 2;
  tensor.dtype = DType{kDLFloat, 32}.dl();
  tensor.shape = shape.data();
  return ManagedTensor::own(tensor, 0, {memory, [](void* context) noexcept {
                                          auto* last = static_cast<Memory*>(context);
                                          last->floats.fill(-1);
                                          ++*last->ended;
                                          delete last;
                                        }});
}

template <typename T>
bool counts_up(const ManagedTensor& tensor) {
  const TensorView<const T, 2> view(tensor);
  T expected = 0;
  for (std::int64_t i = 0; i < view.extent(0); ++i) {
    for (std::int64_t j = 0; j < view.extent(1); ++j) {
      if (view(i, j) != expected++) {
        return false;
      }
    }
  }
  return true;
}

// One thing that a thread does with a source; false where it read anything wrong.
bool do_one(Choices& choose, const ManagedTensor& source, Exchange& exports) {
  switch (choose.below(6)) {
    case 0: {  // a view, exported: another thread releases it
      exports.leave(choose.below(8), source.share());
      return true;
    }
    case 1: {
      if (source.readonly()) {
        return counts_up<float>(source);
      }
      DLManagedTensor* legacy = source.share().release_legacy();
      const bool right = static_cast<const float*>(legacy->dl_tensor.data)[5] == 5.0F;
      legacy->deleter(legacy);
      return right;
    }
    case 2:  // a crossing without a copy, of which a further one is taken
      return counts_up<float>(convert<Shares, Shares>(convert<Shares, Shares>(source)));
    case 3: {
      ManagedTensor copy = convert<Shares, Shares>(source, Policy::snapshot());
      const bool right = counts_up<float>(copy);
      exports.leave(choose.below(8), std::move(copy));
      return right;
    }
    case 4:
      return counts_up<double>(
          convert<Shares, Shares>(source, Policy::host(), as_type({kDLFloat, 64})));
    default: {
      ManagedTensor view = source.share();
      view.mark_read_only();
      return view.share().readonly() && counts_up<float>(view);
    }
  }
}

TEST(SixteenThreads, cross_export_and_drop_the_same_sources) {
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> ended{0};
    Versioned versioned;
    Legacy legacy;
    Exchange exports;
    std::array<std::vector<ManagedTensor>, kThreads> sources;
    {
      std::vector<ManagedTensor> first;
      first.push_back(ManagedTensor::adopt(&versioned.managed));
      first.push_back(ManagedTensor::adopt(&legacy.managed, false));
      first.push_back(spoiled_at_the_end(ended));
      first.push_back(convert<Shares, Shares>(first[0], Policy::snapshot()));
      for (auto& own : sources) {
        for (const ManagedTensor& source : first) {
          own.push_back(source.share());
        }
      }
    }
    const int wrong =
        cross_on_threads(sources, round, [&](Choices& choose, const ManagedTensor& source) {
          return do_one(choose, source, exports);
        });
    ASSERT_EQ(wrong, 0);
    for (std::size_t place = 0; place < 8; ++place) {
      exports.leave(place, ManagedTensor());
    }
    ASSERT_EQ(ended, 1);
    ASSERT_EQ(versioned.deleted(), 1);
    ASSERT_EQ(legacy.deleted(), 1);
  }
}

TEST(SixteenThreads, share_one_object_that_none_of_them_owns) {
  std::atomic<int> ended{0};
  std::atomic<int> wrong{0};
  const ManagedTensor source = spoiled_at_the_end(ended);
  {
    Exchange exports;
    on_threads(kThreads, [&](int number) {
      Choices choose(number);
      for (int i = 0; i < 200; ++i) {
        wrong += do_one(choose, source, exports) ? 0 : 1;
      }
    });
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(ended, 0);
}

// Copies with helpers of their own, and memory out of the pool: what one gave back another fills.
TEST(SixteenThreads, copy_one_large_source_with_helpers) {
  set_copy_threads(3);
  const std::array<std::int64_t, 2> shape{1024, 1536};
  ManagedTensor source = ManagedTensor::allocate({kDLFloat, 32}, shape);
  auto* floats = static_cast<float*>(source.data());
  for (std::int64_t i = 0; i < element_count(source.tensor()); ++i) {
    floats[i] = static_cast<float>(i);
  }
  std::atomic<int> wrong{0};
  {
    Exchange exports;
    on_threads(kThreads, [&](int number) {
      Choices choose(number);
      for (int i = 0; i < 4; ++i) {
        ManagedTensor copy = convert<Shares, Shares>(source, Policy::snapshot());
        wrong += counts_up<float>(copy) ? 0 : 1;
        exports.leave(choose.below(8), std::move(copy));
      }
    });
  }
  EXPECT_EQ(wrong, 0);
  set_copy_threads(0);
  release_pool();
}

std::vector<std::byte> copied(CopyJob job, std::int64_t elements, int threads) {
  std::vector<std::byte> target(static_cast<std::size_t>(elements * job.target_dtype.itemsize()));
  job.target = target.data();
  set_copy_threads(threads);
  copy_elements(job);
  set_copy_threads(0);
  return target;
}

TEST(HelpersOfACopy, write_what_one_thread_writes) {
  constexpr std::int64_t kSide = 1200;
  const std::array<std::int64_t, 2> shape{kSide, kSide};
  for (const auto& [from, to] : {std::pair<DType, DType>{{kDLUInt, 8}, {kDLUInt, 8}},
                                 {{kDLUInt, 8}, {kDLFloat, 32}},
                                 {{kDLBfloat, 16}, {kDLFloat, 32}},
                                 {{kDLComplex, 64}, {kDLComplex, 64}},
                                 {{kDLInt, 64}, {kDLInt, 16}}}) {
    std::vector<std::byte> memory(static_cast<std::size_t>(kSide * kSide * from.itemsize()));
    for (std::size_t i = 0; i < memory.size(); ++i) {
      memory[i] = static_cast<std::byte>(i * i % 101);
    }
    const std::array<std::int64_t, 2> packed{kSide * to.itemsize(), to.itemsize()};
    for (const bool transposed : {false, true}) {
      std::array<std::int64_t, 2> strides{kSide * from.itemsize(), from.itemsize()};
      if (transposed) {
        std::swap(strides[0], strides[1]);
      }
      CopyJob job;
      job.ndim = 2;
      job.shape = shape.data();
      job.source = memory.data();
      job.source_strides_bytes = strides.data();
      job.target_strides_bytes = packed.data();
      job.source_dtype = from;
      job.target_dtype = to;
      EXPECT_TRUE(copied(job, kSide * kSide, 3) == copied(job, kSide * kSide, 1))
          << to_string(from) << " to " << to_string(to) << (transposed ? ", transposed" : "");
    }
  }
}

// In a process of its own, since there is no memory for a stack from then on.
TEST(HelpersOfACopy, are_done_without_where_none_can_begin) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer needs an address space of its own";
#endif
  constexpr std::int64_t kElements = std::int64_t{1} << 24;
  const std::int64_t shape[] = {kElements};
  const std::int64_t strides[] = {1};
  const std::vector<std::uint8_t> source(kElements, 7);
  CopyJob job;
  job.ndim = 1;
  job.shape = shape;
  job.source = source.data();
  job.source_strides_bytes = job.target_strides_bytes = strides;
  job.source_dtype = job.target_dtype = {kDLUInt, 8};
  std::vector<std::uint8_t> target(kElements);
  job.target = target.data();
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_AS, &none);
    set_copy_threads(64);  // more than there are stacks of threads that have ended
    copy_elements(job);
    _exit(target == source ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace dlbridge
