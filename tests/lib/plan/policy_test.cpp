#include "dlbridge/policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lib/doubles.hpp"

namespace dlbridge {
namespace {

using ::testing::ElementsAre;

static_assert(Policy{} == Policy::host());
static_assert(Policy::host().with_copy(CopyRule::kNever) == Policy::zero_copy());
static_assert(Policy::host().with_copy(CopyRule::kAlways) == Policy::snapshot());
static_assert(Policy::host() != Policy::strict());

std::vector<std::string> names_of(Field field) {
  std::vector<std::string> names;
  for (const auto& value : kFields[static_cast<std::size_t>(field)].values) {
    if (!value.name.empty()) {
      names.emplace_back(value.name);
    }
  }
  return names;
}

TEST(Policy, has_the_fields_and_values_of_the_design_with_the_default_first) {
  const std::vector<std::string_view> fields{"grad",  "bits",     "device", "layout",
                                             "dtype", "readonly", "overlap"};
  for (std::size_t i = 0; i < fields.size(); ++i) {
    EXPECT_EQ(kFields[i].name, fields[i]);
  }
  EXPECT_EQ(kFields.size(), fields.size());
  EXPECT_THAT(names_of(Field::kGrad), ElementsAre("detach", "refuse", "detach_writable"));
  EXPECT_THAT(names_of(Field::kBits), ElementsAre("resolve", "refuse"));
  EXPECT_THAT(names_of(Field::kDevice), ElementsAre("copy", "refuse"));
  EXPECT_THAT(names_of(Field::kLayout), ElementsAre("refuse", "densify"));
  EXPECT_THAT(names_of(Field::kDType), ElementsAre("ml_dtypes", "upcast", "bits", "refuse"));
  EXPECT_THAT(names_of(Field::kReadOnly), ElementsAre("copy", "refuse", "alias"));
  EXPECT_THAT(names_of(Field::kOverlap), ElementsAre("readonly", "copy", "refuse"));
}

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
