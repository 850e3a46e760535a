// What holds for every plan, asked of many random ones; and overlap against a count of every byte.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"
#include "lib/plan/plan_laws.hpp"

namespace dlbridge {
namespace {

using namespace cases;  // NOLINT(google-build-using-namespace): the vocabulary of these tests

// Seeded, so that a failure comes again.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : bits_(seed) {}
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(bits_);
  }
  bool one_in(int many) { return between(1, many) == 1; }
  template <typename Items>
  const auto& of(const Items& items) {
    return items[static_cast<std::size_t>(
        between(0, static_cast<std::int64_t>(std::size(items)) - 1))];
  }

 private:
  std::mt19937_64 bits_;
};

void choose_layout(Chance& chance, Spec& spec) {
  const auto ndim = static_cast<std::size_t>(chance.between(0, 4));
  spec.shape.resize(ndim);
  spec.strides.resize(ndim);
  for (auto& size : spec.shape) {
    size = chance.one_in(8) ? 0 : chance.between(1, 4);
  }
  fill_c_strides(spec.shape, spec.strides.data());
  if (chance.one_in(2)) {
    for (auto& stride : spec.strides) {
      stride = chance.between(-6, 12);
    }
  } else if (chance.one_in(2)) {
    for (std::size_t i = 0; i < ndim; ++i) {  // a permutation of both together
      const auto j = static_cast<std::size_t>(chance.between(0, static_cast<std::int64_t>(i)));
      std::swap(spec.shape[i], spec.shape[j]);
      std::swap(spec.strides[i], spec.strides[j]);
    }
  }
}

Spec random_spec(Chance& chance) {
  Spec spec;
  const auto last_said = static_cast<std::int64_t>(Condition::kTooManyDimensions) - 1;
  for (std::int64_t i = chance.between(0, 5) - 2; i > 0; --i) {
    spec.conditions.add(static_cast<Condition>(chance.between(0, last_said)));
  }
  spec.conditions.add_if(chance.one_in(4), Condition::kInGraph);
  spec.conditions.add_if(chance.one_in(4), Condition::kReadOnly);
  spec.dtype = chance.one_in(2) ? DType(kDLFloat, 32) : chance.of(kNamedDTypes).dtype;
  constexpr std::array kTypes{kDLCPU, kDLCPU, kDLCPU, kDLCUDA, kDLCUDAHost, kDLMetal};
  spec.device = Device(chance.of(kTypes), 0);
  spec.byte_offset = chance.one_in(4) ? static_cast<std::uint64_t>(chance.between(1, 15)) : 0;
  spec.copies_to_host = !chance.one_in(4);
  spec.copies_there = !chance.one_in(4);
  choose_layout(chance, spec);
  return spec;
}

Policy random_policy(Chance& chance) {
  if (chance.one_in(4)) {
    return chance.of(kPresets).policy;
  }
  Policy policy;
  for (int i = 0; i < kFieldCount; ++i) {
    const auto& value = chance.of(kFields[static_cast<std::size_t>(i)].values);
    if (!value.name.empty()) {
      policy = policy.with(static_cast<Field>(i), value.ruling);
    }
  }
  constexpr std::array kRules{CopyRule::kWhenNeeded, CopyRule::kNever, CopyRule::kAlways};
  return policy.with_copy(chance.of(kRules));
}

Request random_request(Chance& chance) {
  Request request;
  if (chance.one_in(4)) {
    request.dtype = chance.of(kNamedDTypes).dtype;
  }
  if (chance.one_in(8)) {
    request.device = chance.one_in(2) ? Device{} : Device(kDLCUDA, 0);
  }
  request.c_order = chance.one_in(4);
  request.writable = chance.one_in(4);
  return request;
}

TEST(EveryPlan, keeps_the_laws) {
  Chance chance(20261107);
  const std::array targets{&kHostOnly, &kTorchLike, &kLegacyLike, &kCompact, &kConstant};
  std::map<char, int> outcomes;
  for (int round = 0; round < 20000; ++round) {
    const Spec spec = random_spec(chance);
    const Policy policy = random_policy(chance);
    const Request request = random_request(chance);
    const Capabilities& target = *chance.of(targets);
    const Described described(spec);
    const Plan plan = dlbridge::plan(described.source(), target, policy, request);
    EXPECT_EQ(laws::broken_law(plan, {described.source(), target, policy, request}), "");
    ++outcomes[outcome(plan)];
    if (::testing::Test::HasFailure()) {
      FAIL() << "in round " << round;
    }
  }
  for (const char letter : {'R', 'C', 'O', 'V'}) {
    EXPECT_GT(outcomes[letter], 200) << "too few of " << letter << " to say anything";
  }
}

// ---- the short cut ----------------------------------------------------------------------------

Capabilities random_capabilities(Chance& chance) {
  constexpr std::array kTargets{&kHostOnly, &kTorchLike, &kLegacyLike, &kCompact};
  constexpr std::array kReadOnly{ReadOnlySupport::kHonours, ReadOnlySupport::kUnaware,
                                 ReadOnlySupport::kNever};
  Capabilities target = *chance.of(kTargets);
  target.wants_host = chance.one_in(4);
  target.own_device = chance.one_in(8) ? int{kDLCUDA} : 0;
  target.copies = chance.one_in(8);
  target.copies_to_device = chance.one_in(2);
  target.readonly = chance.of(kReadOnly);
  target.gives_writable = !chance.one_in(8);
  if (chance.one_in(4)) {
    target.strides = StrideSupport::kCompact;
  }
  target.alignment = chance.one_in(4) ? 64 : 1;
  target.reads_unaligned = chance.one_in(2);
  target.takes_as_constant = chance.one_in(8);
  target.min_dimensions = chance.one_in(8) ? 2 : 0;
  target.max_dimensions = chance.one_in(8) ? 2 : kMaxDimensions;
  return target;
}

// Whatever takes the common case out of the decision has to decide as the conditions would.
TEST(ShortCut, comes_to_what_the_conditions_say) {
  Chance chance(20261126);
  int taken = 0;
  int detached = 0;
  for (int round = 0; round < 100000; ++round) {
    Spec spec = random_spec(chance);
    if (chance.one_in(2)) {
      spec.conditions = chance.one_in(2) ? Conditions{} : Conditions{Condition::kInGraph};
      fill_c_strides(spec.shape, spec.strides.data());
    }
    const Capabilities target = random_capabilities(chance);
    const Policy policy = random_policy(chance);
    const Request request = random_request(chance);
    const Described described(spec);
    const Source& source = described.source();
    ASSERT_TRUE(laws::same(plan(source, target, policy, request),
                           detail::plan_by_conditions(source, target, policy, request)))
        << "in round " << round;
    const bool in_graph = source.traits.conditions == Conditions{Condition::kInGraph};
    const Glance glance = in_graph ? Glance::kInGraph : Glance::kPlain;
    if ((in_graph || source.traits.conditions.empty()) && is_c_contiguous(source.tensor) &&
        takes_as_it_is(glance, target, source.tensor, policy, request)) {
      ++(in_graph ? detached : taken);
      const Plan slow = detail::plan_by_conditions(source, target, policy, request);
      ASSERT_TRUE(!slow.is_refused() && slow.view && slow.writable == !in_graph &&
                  slow.has(Step::kDetach) == in_graph && slow.leg_count == 0)
          << "in round " << round;
    }
    ASSERT_FALSE(takes_as_it_is(Glance::kCloser, target, source.tensor, policy, request));
  }
  EXPECT_GT(taken, 1000) << "too few to say anything";
  EXPECT_GT(detached, 100) << "too few to say anything";
}

// ---- overlap ----------------------------------------------------------------------------------

bool plans_overlap(const Spec& spec) {
  return plan_of(spec, kHostOnly, Policy::host().with(Field::kOverlap, Ruling::kRefuse))
      .refused.has(Condition::kOverlap);
}

TEST(Overlap, is_found_exactly_where_two_elements_share_a_place) {
  Chance chance(5);
  std::array<int, 2> found{};
  for (int round = 0; round < 20000; ++round) {
    Spec spec;
    choose_layout(chance, spec);
    const bool expected = laws::really_overlaps(spec.shape, spec.strides);
    ASSERT_EQ(plans_overlap(spec), expected)
        << ::testing::PrintToString(spec.shape) << ::testing::PrintToString(spec.strides);
    ++found[expected ? 1 : 0];
  }
  EXPECT_GT(found[0], 1000);
  EXPECT_GT(found[1], 1000);
}

struct Layout {
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  bool overlaps;
};

TEST(Overlap, is_judged_rightly_in_layouts_that_libraries_make) {
  const Layout layouts[] = {
      {{4}, {0}, true},               // expand
      {{1, 4}, {0, 1}, false},        // expand of one
      {{0, 4}, {0, 0}, false},        // nothing to share
      {{}, {}, false},                // one element
      {{5, 3}, {1, 1}, true},         // sliding windows
      {{2, 3}, {3, 2}, false},        // 0 2 4 3 5 7: interleaved, and none twice
      {{3, 4}, {3, 2}, true},         // 6 is met twice
      {{4, 4}, {-4, 1}, false},       // upside down
      {{2, 2, 2}, {4, 2, 1}, false},  // cube
      {{1000, 1000, 1000}, {1, 1000, 1000000}, false},
      {{1 << 20, 3}, {1, 1}, true},  // far beyond what is counted
      {{1 << 20, 2}, {2, 1}, false},
      {{2, 1 << 20}, {1 << 20, 1}, false},
      {{2, (1 << 20) + 1}, {1 << 20, 1}, true},
  };
  for (const auto& layout : layouts) {
    Spec spec;
    spec.shape = layout.shape;
    spec.strides = layout.strides;
    EXPECT_EQ(plans_overlap(spec), layout.overlaps)
        << ::testing::PrintToString(layout.shape) << ::testing::PrintToString(layout.strides);
  }
}

}  // namespace
}  // namespace dlbridge
