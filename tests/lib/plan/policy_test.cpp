#include "dlbridge/policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <type_traits>

#include "dlbridge/plan.hpp"
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

// Whether it is a constant: what a row lacks is none.
template <Field kField, Ruling kRuling>
concept Allowed = requires {
  typename std::bool_constant<(static_cast<void>(Policy().with(kField, kRuling)), true)>;
};
static_assert(Allowed<Field::kGrad, Ruling::kDetachWritable>);
static_assert(!Allowed<Field::kGrad, Ruling::kDensify>);
static_assert(!Allowed<Field::kDType, Ruling::kCopy>);

TEST(Policy, takes_the_rulings_of_each_fields_row_only) {
  EXPECT_THAT([] { (void)Policy().with(Field::kGrad, Ruling::kDensify); },
              ::testing::ThrowsMessage<std::invalid_argument>(::testing::StrEq(
                  "no such ruling of the field 'grad'; use that of 'detach' 'refuse' "
                  "'detach_writable'")));
}

TEST(Capabilities, have_a_power_of_two_as_their_alignment) {
  static_assert(Capabilities{.alignment = 64}.alignment == 64);
  for (const std::int64_t bytes :
       {std::int64_t{0}, std::int64_t{-8}, std::int64_t{48}, std::int64_t{1} << 40, INT64_MIN}) {
    EXPECT_THROW((void)Capabilities{.alignment = bytes}, std::invalid_argument) << bytes;
  }
}

// Fields that are left out have values of their own: no warning, where warnings are errors.
TEST(Request, names_what_it_asks_for_alone) {
  const Request cast{.dtype = DType(kDLFloat, 32)};
  const Request move{.device = Device{}};
  EXPECT_FALSE(cast.device || move.dtype);
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
