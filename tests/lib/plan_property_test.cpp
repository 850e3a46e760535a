// What holds for every plan, asked of many random ones; and overlap against a count of every byte.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lib/doubles.hpp"
#include "lib/plan_cases.hpp"

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
  spec.byte_offset = chance.one_in(4) ? 4 : 0;
  spec.copies_to_host = !chance.one_in(4);
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
  return request;
}

// Whether two elements are at the same place, found by visiting all of them.
bool really_overlaps(const Spec& spec) {
  std::map<std::int64_t, int> places;
  const std::function<void(std::size_t, std::int64_t)> visit = [&](std::size_t i, std::int64_t at) {
    if (i == spec.shape.size()) {
      ++places[at];
      return;
    }
    for (std::int64_t j = 0; j < spec.shape[i]; ++j) {
      visit(i + 1, at + j * spec.strides[i]);
    }
  };
  visit(0, 0);
  return std::any_of(places.begin(), places.end(),
                     [](const auto& place) { return place.second > 1; });
}

bool same(const Plan& a, const Plan& b) {
  return a.reasons == b.reasons && a.refused == b.refused && a.steps == b.steps &&
         a.view == b.view && a.writable == b.writable && a.dtype == b.dtype &&
         a.device == b.device && a.bytes_copied == b.bytes_copied;
}

void check_refusal(const Plan& plan) {
  EXPECT_EQ(plan.steps, 0);
  EXPECT_FALSE(plan.view);
  EXPECT_FALSE(plan.writable);
  EXPECT_EQ(plan.bytes_copied, 0);
  plan.refused.for_each([&](Condition condition) { EXPECT_TRUE(plan.reasons.has(condition)); });
}

void check_copy(const Plan& plan, const Spec& spec, const Policy& policy) {
  EXPECT_NE(policy.copy(), CopyRule::kNever);
  EXPECT_TRUE(plan.writable);
  EXPECT_FALSE(plan.has(Step::kMarkReadOnly));
  std::int64_t count = 1;
  for (const auto size : spec.shape) {
    count *= size;
  }
  if (plan.dtype.whole_bytes()) {
    EXPECT_EQ(plan.bytes_copied, count * plan.dtype.itemsize());
  }
  EXPECT_FALSE(plan.reasons.empty());
}

void check_view(const Plan& plan, const Spec& spec, const Capabilities& target,
                const Policy& policy) {
  EXPECT_NE(policy.copy(), CopyRule::kAlways);
  EXPECT_EQ(plan.bytes_copied, 0);
  for (const Step step :
       {Step::kResolveConj, Step::kResolveNeg, Step::kMaterialise, Step::kDensify,
        Step::kCopyToHost, Step::kCopyToDevice, Step::kRepack, Step::kCast, Step::kSwapBytes}) {
    EXPECT_FALSE(plan.has(step)) << kStepNames[static_cast<std::size_t>(step)];
  }
  EXPECT_FALSE(spec.conditions.meets(kWithoutStorage));
  if (plan.writable) {
    EXPECT_FALSE(plan.has(Step::kMarkReadOnly));
    const bool alias =
        target.readonly == ReadOnlySupport::kUnaware && policy[Field::kReadOnly] == Ruling::kAlias;
    if (!alias) {
      EXPECT_FALSE(spec.conditions.has(Condition::kReadOnly));
      const bool in_graph = spec.conditions.meets({Condition::kInGraph, Condition::kForwardDual});
      EXPECT_TRUE(!in_graph || policy[Field::kGrad] == Ruling::kDetachWritable);
      EXPECT_TRUE(target.guards_overlap || !really_overlaps(spec));
    }
  }
}

void check_words(const Plan& plan, const Source& source, const Capabilities& target,
                 const Policy& policy, const Request& request) {
  const Explanation text = explain(plan, source, target, policy, request);
  EXPECT_EQ(text.message.empty(), !plan.is_refused());
  EXPECT_TRUE(plan.is_refused() || text.fix.empty());
  int named = 0;
  (plan.is_refused() ? plan.refused : plan.reasons).for_each([&](Condition) { ++named; });
  EXPECT_EQ(text.reasons.size(), static_cast<std::size_t>(named));
  for (const auto& reason : text.reasons) {
    EXPECT_FALSE(reason.empty());
    EXPECT_EQ(reason.find('{'), std::string::npos) << reason;
  }
  EXPECT_EQ(text.message.find('{'), std::string::npos) << text.message;
}

TEST(EveryPlan, keeps_the_laws) {
  Chance chance(20261107);
  const std::array targets{&kHostOnly, &kTorchLike, &kLegacyLike, &kCompact};
  std::map<char, int> outcomes;
  for (int round = 0; round < 20000; ++round) {
    const Spec spec = random_spec(chance);
    const Policy policy = random_policy(chance);
    const Request request = random_request(chance);
    const Capabilities& target = *chance.of(targets);
    const Described described(spec);
    const Plan plan = dlbridge::plan(described.source(), target, policy, request);
    EXPECT_TRUE(same(plan, dlbridge::plan(described.source(), target, policy, request)));
    EXPECT_TRUE(same(plan, plan_of(spec, target, policy, request)));
    switch (outcome(plan)) {
      case 'R':
        check_refusal(plan);
        break;
      case 'C':
        check_copy(plan, spec, policy);
        break;
      default:
        check_view(plan, spec, target, policy);
    }
    check_words(plan, described.source(), target, policy, request);
    ++outcomes[outcome(plan)];
    if (::testing::Test::HasFailure()) {
      FAIL() << "in round " << round;
    }
  }
  for (const char letter : {'R', 'C', 'O', 'V'}) {
    EXPECT_GT(outcomes[letter], 200) << "too few of " << letter << " to say anything";
  }
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
    const bool expected = really_overlaps(spec);
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
