// What is asked of a leaf of a tree: a cast of its own kind, and of what holds no numbers nothing.

#include <gtest/gtest.h>

#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using namespace cases;  // NOLINT(google-build-using-namespace): the vocabulary of these tests

Request leaf_request(std::optional<DType> dtype = {}) {
  Request request;
  request.dtype = dtype;
  request.leaf = true;
  return request;
}

const Request kLeaf = leaf_request();

// A source of no type that DLPack knows, which may be of texts or the like.
struct WithoutType {
  explicit WithoutType(bool no_numbers, Conditions also = {}) {
    source.traits.library = &kShelf;
    source.traits.conditions = also | Conditions{Condition::kInexpressibleDType};
    source.traits.no_numbers = no_numbers;
    source.tensor.device = Device{}.dl();
    source.tensor.ndim = 0;
    source.detail = "text";
  }
  Source source;
};

TEST(Leaf, a_cast_is_for_leaves_of_its_own_kind) {
  for (const auto& from : kNamedDTypes) {
    for (const auto& to : kNamedDTypes) {
      Request request = leaf_request(to.dtype);
      const bool of_kind = from.dtype.kind() == to.dtype.kind() && from.dtype != to.dtype;
      EXPECT_EQ(request.asks_for_cast(from.dtype), of_kind) << from.name << " to " << to.name;
      request.leaf = false;
      EXPECT_EQ(request.asks_for_cast(from.dtype), from.dtype != to.dtype);
    }
  }
}

TEST(Leaf, every_named_type_has_its_kind) {
  using enum DType::Kind;
  const auto kind = [](std::string_view name) { return dtype_named(name)->kind(); };
  EXPECT_EQ(kind("bool"), kTruth);
  EXPECT_EQ(kind("int8"), kInteger);
  EXPECT_EQ(kind("uint64"), kInteger);
  EXPECT_EQ(kind("complex64"), kComplex);
  for (const char* name : {"float16", "float64", "bfloat16", "float8_e4m3fn", "float8_e8m0fnu"}) {
    EXPECT_EQ(kind(name), kFloating) << name;
  }
  EXPECT_EQ(DType().kind(), kNone);
  EXPECT_EQ(DType(kDLOpaqueHandle, 64).kind(), kNone);
}

TEST(Leaf, a_leaf_of_another_kind_passes_as_without_a_cast) {
  for (const char* name : {"int64", "bool", "complex64"}) {
    Spec spec;
    spec.dtype = *dtype_named(name);
    const Described leaf(spec);
    const Request cast = leaf_request(DType(kDLFloat, 16));
    Request alone = cast;
    alone.leaf = false;
    for (const Policy& policy : {Policy::host(), Policy::strict(), Policy::zero_copy()}) {
      const Plan decided = plan(leaf.source(), kHostOnly, policy, cast);
      EXPECT_TRUE(decided.view);
      EXPECT_EQ(decided.dtype, spec.dtype);
      EXPECT_EQ(decided.steps, 0);
    }
    EXPECT_FALSE(plan(leaf.source(), kHostOnly, Policy::snapshot(), cast).has(Step::kCast));
    EXPECT_FALSE(plan(leaf.source(), kHostOnly, Policy::host(), alone).view);
  }
}

TEST(Leaf, of_the_targets_library_a_leaf_of_another_kind_stays_itself) {
  Source source;
  source.traits.library = &kShelf;
  source.traits.of_target = true;
  source.tensor.device = Device{}.dl();
  source.tensor.dtype = DType(kDLInt, 64).dl();
  const DType half(kDLFloat, 16);
  EXPECT_TRUE(plan(source, kHostOnly, Policy::host(), leaf_request(half)).itself);
  Request alone = leaf_request(half);
  alone.leaf = false;
  EXPECT_FALSE(plan(source, kHostOnly, Policy::host(), alone).itself);
}

TEST(Leaf, what_holds_no_numbers_stays_unless_the_policy_is_strict) {
  const WithoutType text(true);
  for (const Policy& policy : {Policy::host(), Policy::zero_copy(), Policy::snapshot()}) {
    const Plan decided = plan(text.source, kTorchLike, policy, kLeaf);
    EXPECT_TRUE(decided.itself && decided.view && decided.writable);
    EXPECT_FALSE(decided.is_refused());
    EXPECT_EQ(decided.reasons, Conditions{Condition::kInexpressibleDType});
    EXPECT_TRUE(plan(text.source, kTorchLike, policy).is_refused());
  }
  EXPECT_TRUE(plan(text.source, kTorchLike, Policy::strict(), kLeaf).is_refused());
  const WithoutType read_only(true, {Condition::kReadOnly});
  EXPECT_FALSE(plan(read_only.source, kTorchLike, Policy::host(), kLeaf).writable);
}

TEST(Leaf, numbers_of_an_unknown_type_and_what_means_more_than_its_values_are_refused) {
  EXPECT_TRUE(plan(WithoutType(false).source, kTorchLike, Policy::host(), kLeaf).is_refused());
  for (const Condition also : {Condition::kMasked, Condition::kUnit}) {
    const WithoutType text(true, {also});
    EXPECT_TRUE(plan(text.source, kTorchLike, Policy::host(), kLeaf).refused.has(also));
  }
}

TEST(Leaf, a_copy_of_what_the_targets_library_could_copy_itself_is_not_made_up) {
  WithoutType text(true);
  text.source.traits.of_target = true;
  EXPECT_TRUE(plan(text.source, kHostOnly, Policy::host(), kLeaf).itself);
  EXPECT_TRUE(plan(text.source, kHostOnly, Policy::snapshot(), kLeaf).is_refused());
}

TEST(Leaf, its_own_library_copies_what_no_managed_tensor_can_hold) {
  WithoutType text(true);
  text.source.traits.of_target = true;
  text.source.traits.own_copy_bytes = 24;
  const Plan copied = plan(text.source, kHostOnly, Policy::snapshot());
  EXPECT_TRUE(copied.itself && copied.writable && copied.has(Step::kRepack));
  EXPECT_FALSE(copied.view);
  EXPECT_EQ(copied.bytes_copied, 24);
  EXPECT_EQ(copied.reasons, Conditions{Condition::kCopyAsked});
  EXPECT_EQ(copied.leg_count, 0);

  text.source.traits.conditions.add(Condition::kReadOnly);
  Request writable;
  writable.writable = true;
  EXPECT_EQ(plan(text.source, kHostOnly, Policy::host(), writable).reasons,
            Conditions{Condition::kWritableAsked});
  EXPECT_EQ(plan(text.source, kHostOnly, Policy::zero_copy(), writable).refused,
            Conditions{Condition::kWritableAsked});

  Request cast;
  cast.dtype = DType(kDLFloat, 32);
  EXPECT_TRUE(plan(text.source, kHostOnly, Policy::snapshot(), cast).is_refused());
  text.source.traits.conditions.add(Condition::kMasked);
  EXPECT_TRUE(plan(text.source, kHostOnly, Policy::snapshot()).is_refused());
}

}  // namespace
}  // namespace dlbridge
