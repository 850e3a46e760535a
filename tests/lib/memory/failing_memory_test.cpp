// Memory ends at each allocation in turn: a tensor that was handed over ends its lease exactly
// once, one that was not stays its owner's, and nothing is left.

#include "lib/memory/failing_memory.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "dlbridge/carry.hpp"
#include "dlbridge/convert.hpp"
#include "dlbridge/copy.hpp"
#include "dlbridge/memory_pool.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using cases::kHostOnly;
using doubles::Legacy;
using doubles::MemoryEnds;
using doubles::run_out_of_memory;
using doubles::Versioned;

constexpr Library kElsewhere{.name = "elsewhere", .object = "elsewhere.Tensor"};

template <typename Double>
auto fresh() {
  return [] { return std::make_unique<Double>(); };
}

// The lease ended, whether the action came through or not.
constexpr auto kEndedOnce = [](const auto& producer, const std::string&) {
  EXPECT_EQ(producer->deleted(), 1);
};

TEST(MemoryThatEnds, at_own_gives_the_lease_back_once) {
  run_out_of_memory(
      fresh<Versioned>(),
      [](auto& producer) { (void)ManagedTensor::own(producer->tensor(), 0, producer->lease()); },
      kEndedOnce);
}

TEST(MemoryThatEnds, at_the_refusal_of_a_malformed_tensor_gives_the_lease_back_once) {
  run_out_of_memory(
      [] {
        auto producer = std::make_unique<Versioned>();
        producer->tensor().ndim = 1000;
        return producer;
      },
      [](auto& producer) { (void)ManagedTensor::own(producer->tensor(), 0, producer->lease()); },
      kEndedOnce);
}

TEST(MemoryThatEnds, at_adopt_calls_the_deleter_once) {
  run_out_of_memory(
      fresh<Versioned>(), [](auto& producer) { (void)ManagedTensor::adopt(&producer->managed); },
      kEndedOnce);
  run_out_of_memory(
      fresh<Legacy>(),
      [](auto& producer) { (void)ManagedTensor::adopt(&producer->managed, false); }, kEndedOnce);
}

TEST(MemoryThatEnds, at_a_refused_adopt_calls_the_deleter_once) {
  run_out_of_memory(
      [] {
        auto producer = std::make_unique<Versioned>();
        producer->managed.version.major = 2;
        return producer;
      },
      [](auto& producer) { (void)ManagedTensor::adopt(&producer->managed); }, kEndedOnce);
  run_out_of_memory(
      [] {
        auto producer = std::make_unique<Legacy>();
        producer->tensor().data = nullptr;
        return producer;
      },
      [](auto& producer) { (void)ManagedTensor::adopt(&producer->managed, true); }, kEndedOnce);
}

TEST(MemoryThatEnds, at_adopt_or_leave_leaves_the_tensor_with_its_owner) {
  run_out_of_memory(
      fresh<Versioned>(),
      [](auto& producer) { (void)ManagedTensor::adopt_or_leave(&producer->managed); },
      [](const auto& producer, const std::string& what) {
        EXPECT_EQ(producer->deleted(), what.empty() ? 1 : 0);
      });
}

TEST(MemoryThatEnds, at_share_and_release_leaves_the_tensor_as_it_was) {
  struct Owned {
    Versioned producer;
    ManagedTensor tensor = ManagedTensor::adopt(&producer.managed);
  };
  const auto as_it_was = [](const auto& owned, const std::string&) {
    EXPECT_EQ(owned->producer.deleted(), 0);
    EXPECT_TRUE(owned->tensor);
  };
  run_out_of_memory(
      fresh<Owned>(), [](auto& owned) { (void)owned->tensor.share(); }, as_it_was);
  run_out_of_memory(
      fresh<Owned>(),
      [](auto& owned) {
        ManagedTensor shared = owned->tensor.share();
        DLManagedTensor* legacy = shared.release_legacy();
        legacy->deleter(legacy);
      },
      as_it_was);
}

TEST(MemoryThatEnds, at_the_refusal_of_a_legacy_release_leaves_the_tensor) {
  run_out_of_memory(
      [] {
        auto tensor = ManagedTensor::allocate({kDLFloat, 32}, std::array<std::int64_t, 1>{3});
        tensor.mark_read_only();
        return tensor;
      },
      [](auto& tensor) { (void)tensor.release_legacy(); },
      [](const auto& tensor, const std::string& what) {
        EXPECT_NE(what, "");
        EXPECT_TRUE(tensor);
      });
}

TEST(MemoryThatEnds, at_allocate_leaves_nothing) {
  for (const std::int64_t size : {0, 7, 1 << 19, 3 << 20}) {
    run_out_of_memory(
        [] { return 0; },
        [size](int) {
          (void)ManagedTensor::allocate({kDLFloat, 32}, std::array<std::int64_t, 1>{size});
        },
        [](int, const std::string&) {});
  }
}

TEST(MemoryThatEnds, is_taken_from_the_pool_before_it_is_told) {
  const auto allocate = [](std::int64_t megabytes) {
    const std::int64_t bytes = megabytes << 20;
    return ManagedTensor::allocate({kDLUInt, 8}, {&bytes, 1});
  };
  for (const std::int64_t megabytes : {2, 6}) {
    int rescued = 0;
    for (long at = 1; at < 20; ++at) {
      const MemoryEnds ends(at);
      try {
        (void)allocate(1);
        const std::size_t kept = pooled_bytes();
        const bool before = MemoryEnds::has_ended();
        const ManagedTensor tensor = allocate(megabytes);
        rescued += kept != 0 && !before && MemoryEnds::has_ended() ? 1 : 0;
      } catch (const std::bad_alloc&) {  // of another call than the one for the memory
      }
    }
    EXPECT_EQ(rescued, 1) << megabytes << " MB";
  }
  release_pool();
}

// Everything that plan() and carry_out() do to host memory, and each refusal in words.
TEST(MemoryThatEnds, at_a_crossing_leaves_its_source_alone) {
  struct Way {
    Policy policy;
    Request request;
    bool readonly;
  };
  Request cast;
  cast.dtype = DType{kDLFloat, 64};
  Request there;
  there.device = Device(kDLVulkan, 0);
  const Way ways[] = {
      {Policy(), {}, false},           {Policy::snapshot(), {}, false},   {Policy(), cast, false},
      {Policy::strict(), cast, false}, {Policy::zero_copy(), cast, true}, {Policy(), there, false}};
  for (const Way& way : ways) {
    run_out_of_memory(
        fresh<Versioned>(),
        [&way](auto& producer) {
          const ManagedTensor tensor = ManagedTensor::adopt(&producer->managed);
          Source source;
          describe(tensor, kElsewhere, source);
          source.traits.conditions.add_if(way.readonly, Condition::kReadOnly);
          const Plan decided = plan(source, kHostOnly, way.policy, way.request);
          if (decided.is_refused()) {
            throw refusal(decided, source, kHostOnly, way.policy, way.request);
          }
          ManagedTensor taken = decided.view ? tensor.share() : carry_out(decided, source);
          if (decided.view) {
            carry_out_view(decided, taken);
          }
        },
        [](const auto& producer, const std::string&) {
          EXPECT_EQ(producer->deleted(), 1);
          EXPECT_EQ(producer->memory[5], 5.0F);
        });
  }
}

// Large enough for helpers: their threads may be refused too, and then fewer copy.
TEST(MemoryThatEnds, at_a_copy_in_parallel_is_a_right_copy_or_none) {
  std::vector<float> memory(std::size_t{3} << 20, 1.5F);
  const std::array<std::int64_t, 2> shape{1024, 3072};
  const std::array<std::int64_t, 2> strides{1, 1024};
  run_out_of_memory([] { return 0; },
                    [&](int) {
                      Source source;
                      source.traits.library = &kElsewhere;
                      source.tensor.data = memory.data();
                      source.tensor.device = Device{}.dl();
                      source.tensor.ndim = 2;
                      source.tensor.dtype = DType{kDLFloat, 32}.dl();
                      source.tensor.shape = const_cast<std::int64_t*>(shape.data());
                      source.tensor.strides = const_cast<std::int64_t*>(strides.data());
                      const ManagedTensor copy =
                          carry_out(plan(source, kHostOnly, Policy::snapshot()), source);
                      const auto* first = static_cast<const float*>(copy.data());
                      EXPECT_TRUE(std::all_of(first, first + memory.size(),
                                              [](float value) { return value == 1.5F; }));
                    },
                    [](int, const std::string&) {});
}

}  // namespace
}  // namespace dlbridge
