#include "dlbridge/policy.hpp"

#include <gtest/gtest.h>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

static_assert(Policy{} == Policy::host());
static_assert(Policy::host().with_copy(CopyRule::kNever) == Policy::zero_copy());
static_assert(Policy::host().with_copy(CopyRule::kAlways) == Policy::snapshot());
static_assert(Policy::host() != Policy::strict());

TEST(Policy, of_the_host_has_the_first_value_of_every_field_and_copies_when_needed) {
  for (int i = 0; i < kFieldCount; ++i) {
    EXPECT_EQ(Policy::host()[static_cast<Field>(i)],
              kFields[static_cast<std::size_t>(i)].values[0].ruling);
  }
  EXPECT_EQ(Policy::host().copy(), CopyRule::kWhenNeeded);
}

TEST(Policy, that_is_strict_refuses_in_every_field_but_overlap_and_never_copies) {
  for (int i = 0; i < kFieldCount; ++i) {
    const auto field = static_cast<Field>(i);
    EXPECT_EQ(Policy::strict()[field],
              field == Field::kOverlap ? Ruling::kReadOnlyView : Ruling::kRefuse);
  }
  EXPECT_EQ(Policy::strict().copy(), CopyRule::kNever);
}

TEST(Policy, is_found_by_the_name_of_its_preset) {
  EXPECT_EQ(policy_named("host"), Policy::host());
  EXPECT_EQ(policy_named("strict"), Policy::strict());
  EXPECT_EQ(policy_named("zero_copy"), Policy::zero_copy());
  EXPECT_EQ(policy_named("snapshot"), Policy::snapshot());
  for (const char* name : {"", "Host", "zero-copy", "strict "}) {
    EXPECT_EQ(policy_named(name), std::nullopt) << name;
  }
}

TEST(Policy, changes_one_field_and_no_other) {
  const Policy policy = Policy::host().with(Field::kGrad, Ruling::kDetachWritable);
  EXPECT_EQ(policy[Field::kGrad], Ruling::kDetachWritable);
  EXPECT_EQ(policy.with(Field::kGrad, Ruling::kDetach), Policy::host());
  EXPECT_EQ(policy.copy(), CopyRule::kWhenNeeded);
  EXPECT_EQ(Policy::host()[Field::kGrad], Ruling::kDetach);
}

}  // namespace
}  // namespace dlbridge
