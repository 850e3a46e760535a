// Every value of every field of Policy, and what a call may ask for beside it.

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>

#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using namespace cases;  // NOLINT(google-build-using-namespace): the vocabulary of these tests

const Row& row(std::string_view name) {
  for (const auto& candidate : policy_table()) {
    if (candidate.name == name) {
      return candidate;
    }
  }
  throw std::logic_error("no row " + std::string(name));
}

struct FieldCase {
  Field field;
  std::string_view value;  // as Python spells it
  std::string_view source;
  char host;  // the outcome for each target, under host but for this field
  char torch;
  char legacy;
  char constant = 0;  // where the field is about it
};

// Every value of every field stands here with every row that it rules.
constexpr FieldCase kFieldCases[] = {
    {Field::kGrad, "detach", "in_a_graph", 'O', 'C', 'R'},
    {Field::kGrad, "detach", "forward_mode_dual", 'O', 'C', 'R'},
    {Field::kGrad, "detach_writable", "in_a_graph", 'V', 'V', 'V'},
    {Field::kGrad, "detach_writable", "forward_mode_dual", 'V', 'V', 'V'},
    {Field::kGrad, "detach_writable", "read_only", 'O', 'C', 'R'},
    {Field::kGrad, "refuse", "in_a_graph", 'R', 'R', 'R'},
    {Field::kGrad, "refuse", "forward_mode_dual", 'R', 'R', 'R'},
    {Field::kGrad, "refuse", "plain", 'V', 'V', 'V'},
    {Field::kBits, "resolve", "conj_bit", 'C', 'C', 'C'},
    {Field::kBits, "resolve", "neg_bit", 'C', 'C', 'C'},
    {Field::kBits, "resolve", "zero_tensor", 'C', 'C', 'C'},
    {Field::kBits, "refuse", "conj_bit", 'R', 'R', 'R'},
    {Field::kBits, "refuse", "neg_bit", 'R', 'R', 'R'},
    {Field::kBits, "refuse", "zero_tensor", 'R', 'R', 'R'},
    {Field::kBits, "refuse", "plain", 'V', 'V', 'V'},
    {Field::kDevice, "copy", "on_a_gpu", 'C', 'V', 'V'},
    {Field::kDevice, "refuse", "on_a_gpu", 'R', 'V', 'V'},
    {Field::kDevice, "refuse", "pinned", 'V', 'V', 'V'},
    {Field::kLayout, "refuse", "sparse", 'R', 'R', 'R'},
    {Field::kLayout, "refuse", "mkldnn", 'R', 'R', 'R'},
    {Field::kLayout, "densify", "sparse", 'C', 'C', 'C'},
    {Field::kLayout, "densify", "mkldnn", 'C', 'C', 'C'},
    {Field::kLayout, "densify", "nested", 'R', 'R', 'R'},
    {Field::kDType, "ml_dtypes", "bfloat16", 'V', 'V', 'V'},
    {Field::kDType, "ml_dtypes", "dtype_that_nobody_has", 'R', 'R', 'V'},
    {Field::kDType, "upcast", "bfloat16", 'C', 'V', 'V'},
    {Field::kDType, "upcast", "dtype_that_nobody_has", 'C', 'C', 'V'},
    {Field::kDType, "bits", "bfloat16", 'V', 'V', 'V'},
    {Field::kDType, "bits", "dtype_that_nobody_has", 'V', 'V', 'V'},
    {Field::kDType, "refuse", "bfloat16", 'R', 'V', 'V'},
    {Field::kDType, "refuse", "plain", 'V', 'V', 'V'},
    {Field::kReadOnly, "copy", "read_only", 'O', 'C', 'R'},
    {Field::kReadOnly, "refuse", "read_only", 'O', 'R', 'R'},
    {Field::kReadOnly, "refuse", "plain", 'V', 'V', 'V'},
    {Field::kReadOnly, "alias", "read_only", 'O', 'V', 'R'},
    {Field::kMutable, "alias", "plain", 'V', 'V', 'V', 'O'},
    {Field::kMutable, "alias", "conj_bit", 'C', 'C', 'C', 'C'},
    {Field::kMutable, "copy", "plain", 'V', 'V', 'V', 'C'},
    {Field::kMutable, "copy", "read_only", 'O', 'C', 'R', 'O'},
    {Field::kMutable, "refuse", "plain", 'V', 'V', 'V', 'R'},
    {Field::kMutable, "refuse", "conj_bit", 'C', 'C', 'C', 'R'},
    {Field::kMutable, "refuse", "read_only", 'O', 'C', 'R', 'O'},
    {Field::kOverlap, "readonly", "expanded", 'O', 'V', 'R'},
    {Field::kOverlap, "copy", "expanded", 'C', 'C', 'C'},
    {Field::kOverlap, "refuse", "expanded", 'R', 'R', 'R'},
    {Field::kOverlap, "refuse", "transposed", 'V', 'V', 'V'},
};

const FieldRow& row_of(Field field) {
  return kFields[static_cast<std::size_t>(field)];
}

Ruling ruling(Field field, std::string_view value) {
  for (const auto& candidate : row_of(field).values) {
    if (candidate.name == value) {
      return candidate.ruling;
    }
  }
  throw std::logic_error("no value " + std::string(value));
}

TEST(PolicyField, every_value_rules_as_the_table_says) {
  for (const auto& test : kFieldCases) {
    SCOPED_TRACE(std::string(row_of(test.field).name) + "=" + std::string(test.value) + ", " +
                 std::string(test.source));
    Spec spec;
    row(test.source).make(spec);
    const Policy policy = Policy::host().with(test.field, ruling(test.field, test.value));
    EXPECT_EQ(outcome(plan_of(spec, kHostOnly, policy)), test.host);
    EXPECT_EQ(outcome(plan_of(spec, kTorchLike, policy)), test.torch);
    EXPECT_EQ(outcome(plan_of(spec, kLegacyLike, policy)), test.legacy);
    if (test.constant != 0) {
      EXPECT_EQ(outcome(plan_of(spec, kConstant, policy)), test.constant);
    }
  }
}

TEST(PolicyField, every_value_of_every_field_has_a_case) {
  for (int i = 0; i < kFieldCount; ++i) {
    for (const auto& value : kFields[static_cast<std::size_t>(i)].values) {
      const bool tested =
          std::any_of(std::begin(kFieldCases), std::end(kFieldCases), [&](const FieldCase& test) {
            return test.field == static_cast<Field>(i) && test.value == value.name;
          });
      EXPECT_TRUE(tested || value.name.empty())
          << kFields[static_cast<std::size_t>(i)].name << "=" << value.name;
    }
  }
}

TEST(PolicyField, detach_writable_detaches_and_marks_nothing) {
  Spec spec;
  spec.conditions = {Condition::kInGraph};
  const Plan plan =
      plan_of(spec, kHostOnly, Policy::host().with(Field::kGrad, Ruling::kDetachWritable));
  EXPECT_TRUE(plan.has(Step::kDetach));
  EXPECT_FALSE(plan.has(Step::kMarkReadOnly));
}

TEST(PolicyField, densify_copies_only_where_copies_are_allowed) {
  Spec spec;
  spec.conditions = {Condition::kSparse};
  const Policy dense = Policy::host().with(Field::kLayout, Ruling::kDensify);
  EXPECT_TRUE(plan_of(spec, kHostOnly, dense).has(Step::kDensify));
  EXPECT_EQ(outcome(plan_of(spec, kHostOnly, dense.with_copy(CopyRule::kNever))), 'R');
}

struct TypeCase {
  std::string_view from;
  std::string_view upcast;  // empty where it is refused
  std::string_view bits;
};

TEST(PolicyField, upcast_and_bits_find_the_type_of_every_missing_one) {
  constexpr TypeCase kCases[] = {
      {"bfloat16", "float32", "uint16"},
      {"float8_e3m4", "float32", "uint8"},
      {"float8_e4m3", "float32", "uint8"},
      {"float8_e4m3b11fnuz", "float32", "uint8"},
      {"float8_e4m3fn", "float32", "uint8"},
      {"float8_e4m3fnuz", "float32", "uint8"},
      {"float8_e5m2", "float32", "uint8"},
      {"float8_e5m2fnuz", "float32", "uint8"},
      {"float8_e8m0fnu", "float32", "uint8"},
      {"complex32", "complex64", "uint32"},
      {"float4_e2m1fn_x2", "", "uint8"},
      {"opaque64", "", "uint64"},
      {"float4_e2m1fn", "", ""},
      {"float6_e2m3fn", "", ""},
      {"int4", "", ""},
      {"uint1", "", ""},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(test.from);
    Spec spec;
    spec.dtype = *dtype_named(test.from);
    const Plan wide = plan_of(spec, kHostOnly, Policy::host().with(Field::kDType, Ruling::kUpcast));
    if (test.upcast.empty()) {
      EXPECT_EQ(wide.refused, Conditions{Condition::kMissingDType});
    } else {
      EXPECT_EQ(outcome(wide), 'C');
      EXPECT_TRUE(wide.has(Step::kCast));
      EXPECT_EQ(to_string(wide.dtype), test.upcast);
      EXPECT_EQ(wide.bytes_copied, 6 * wide.dtype.itemsize());
    }
    const Plan bits = plan_of(spec, kHostOnly, Policy::host().with(Field::kDType, Ruling::kBits));
    if (test.bits.empty()) {
      EXPECT_EQ(bits.refused, Conditions{Condition::kMissingDType});
    } else {
      EXPECT_EQ(outcome(bits), 'V');
      EXPECT_FALSE(bits.has(Step::kCast));
      EXPECT_EQ(to_string(bits.dtype), test.bits);
      EXPECT_TRUE(bits.reasons.has(Condition::kMissingDType));
    }
  }
}

TEST(PolicyField, neither_upcast_nor_bits_ends_in_a_type_that_the_target_lacks) {
  Capabilities poor = kHostOnly;
  poor.dtypes = DTypeSet::of({"int8"});
  poor.extension_dtypes = {};
  Spec spec;
  spec.dtype = DType(kDLBfloat, 16);
  EXPECT_EQ(outcome(plan_of(spec, poor, Policy::host().with(Field::kDType, Ruling::kUpcast))), 'R');
  EXPECT_EQ(outcome(plan_of(spec, poor, Policy::host().with(Field::kDType, Ruling::kBits))), 'R');
}

TEST(PolicyField, upcast_refuses_what_has_no_cast) {
  const Policy upcast = Policy::host().with(Field::kDType, Ruling::kUpcast);
  for (const DType dtype : {DType(kDLBfloat, 16, 4), DType(kDLBfloat, 8), DType(kDLComplex, 8)}) {
    Spec spec;
    spec.dtype = dtype;
    EXPECT_EQ(plan_of(spec, kHostOnly, upcast).refused, Conditions{Condition::kMissingDType});
  }
}

TEST(PolicyField, a_dtype_that_was_asked_for_stands_over_the_field) {
  Capabilities poor = kHostOnly;
  poor.extension_dtypes = {};
  Spec spec;
  spec.dtype = DType(kDLBfloat, 16);
  for (const Ruling ruling : {Ruling::kUpcast, Ruling::kBits, Ruling::kMlDTypes}) {
    const Policy policy = Policy::host().with(Field::kDType, ruling);
    EXPECT_EQ(plan_of(spec, poor, policy, as_type(spec.dtype)).refused,
              Conditions{Condition::kMissingDType});
    EXPECT_EQ(outcome(plan_of(spec, kHostOnly, policy, as_type(spec.dtype))), 'V');
  }
}

TEST(PolicyField, upcast_never_narrows) {
  Capabilities poor = kHostOnly;
  poor.dtypes = DTypeSet::of({"complex64"});
  Spec spec;
  spec.dtype = DType(kDLComplex, 128);
  EXPECT_EQ(outcome(plan_of(spec, poor, Policy::host().with(Field::kDType, Ruling::kUpcast))), 'R');
}

TEST(PolicyField, a_copy_for_a_target_without_read_only_refuses_padded_elements_too) {
  Capabilities unaware = kTorchLike;
  unaware.carries_padding = true;
  unaware.dtypes = DTypeSet::everything();
  Spec spec;
  spec.dtype = DType(kDLInt, 4);
  spec.conditions = {Condition::kPaddedElements};
  EXPECT_EQ(outcome(plan_of(spec, unaware, Policy::host())), 'V');
  spec.conditions.add(Condition::kReadOnly);
  EXPECT_EQ(plan_of(spec, unaware, Policy::host()).refused, Conditions{Condition::kPaddedElements});
}

// ---- copy= ----------------------------------------------------------------------------------

TEST(CopyRule, always_copies_under_strict_what_no_field_refuses) {
  const Policy policy = Policy::strict().with_copy(CopyRule::kAlways);
  const std::string copied =
      "plain expanded sliding_windows transposed negative_strides pinned pinned_for_rocm "
      "managed_memory swapped_bytes fractional_strides scattered elements_at_odd_addresses "
      "misaligned lazy "
      "read_only traced ";
  for (const auto& source : policy_table()) {
    Spec spec;
    source.make(spec);
    const bool expected = copied.find(source.name + " ") != std::string::npos;
    EXPECT_EQ(outcome(plan_of(spec, kHostOnly, policy)), expected ? 'C' : 'R') << source.name;
  }
}

TEST(CopyRule, always_does_not_excuse_a_refusal_to_alias_read_only_memory) {
  Spec spec;
  spec.conditions = {Condition::kReadOnly};
  EXPECT_EQ(outcome(plan_of(spec, kTorchLike, Policy::strict().with_copy(CopyRule::kAlways))), 'R');
}

TEST(CopyRule, always_under_zero_copy_and_never_under_snapshot_stand_over_the_policy) {
  EXPECT_EQ(outcome(plan_of(Spec{}, kHostOnly, Policy::zero_copy().with_copy(CopyRule::kAlways))),
            'C');
  EXPECT_EQ(outcome(plan_of(Spec{}, kHostOnly, Policy::snapshot().with_copy(CopyRule::kNever))),
            'V');
}

TEST(CopyRule, always_gives_its_own_reason_only_where_nothing_else_copies) {
  EXPECT_TRUE(plan_of(Spec{}, kHostOnly, Policy::snapshot()).reasons.has(Condition::kCopyAsked));
  Spec spec;
  spec.conditions = {Condition::kConjBit};
  const Plan plan = plan_of(spec, kHostOnly, Policy::snapshot());
  EXPECT_FALSE(plan.reasons.has(Condition::kCopyAsked));
  EXPECT_FALSE(plan.has(Step::kRepack));
}

TEST(CopyRule, bytes_copied_count_packed_types_as_they_lie) {
  Spec spec;
  spec.shape = {3};
  spec.strides = {1};
  spec.dtype = *dtype_named("float4_e2m1fn");
  EXPECT_EQ(plan_of(spec, kLegacyLike, Policy::snapshot()).bytes_copied, 2);
}

// ---- dtype= and device= ---------------------------------------------------------------------

TEST(Request, a_cast_is_a_copy) {
  const Request request = as_type({kDLFloat, 64});
  const Plan plan = plan_of(Spec{}, kHostOnly, Policy::host(), request);
  EXPECT_EQ(outcome(plan), 'C');
  EXPECT_TRUE(plan.has(Step::kCast));
  EXPECT_EQ(plan.dtype, DType(kDLFloat, 64));
  EXPECT_EQ(plan.bytes_copied, 48);
  EXPECT_TRUE(plan.reasons.has(Condition::kCastAsked));
  EXPECT_EQ(plan_of(Spec{}, kHostOnly, Policy::zero_copy(), request).refused,
            Conditions{Condition::kCastAsked});
  EXPECT_EQ(plan_of(Spec{}, kHostOnly, Policy::strict(), request).refused,
            Conditions{Condition::kCastAsked});
}

TEST(Request, the_type_that_is_there_is_no_cast) {
  EXPECT_TRUE(plan_of(Spec{}, kHostOnly, Policy::strict(), as_type(DType(kDLFloat, 32))).empty());
}

TEST(Request, a_cast_that_does_not_exist_is_refused) {
  Spec complex;
  complex.dtype = DType(kDLComplex, 64);
  EXPECT_EQ(plan_of(complex, kHostOnly, Policy::host(), as_type(DType(kDLFloat, 32))).refused,
            Conditions{Condition::kNoCast});
}

TEST(Request, a_cast_to_what_the_target_lacks_is_refused) {
  EXPECT_EQ(plan_of(Spec{}, kHostOnly, Policy::host(), as_type(DType(kDLFloat8_e3m4, 8))).refused,
            Conditions{Condition::kMissingAskedDType});
  EXPECT_EQ(outcome(plan_of(Spec{}, kHostOnly, Policy::host(), as_type(DType(kDLBfloat, 16)))),
            'C');
}

Request needs(bool c_order, bool writable) {
  Request request;
  request.c_order = c_order;
  request.writable = writable;
  return request;
}

TEST(Request, an_order_is_met_by_a_view_where_it_is_so_and_by_a_copy_elsewhere) {
  Spec transposed;
  transposed.strides = {1, 2};
  EXPECT_TRUE(plan_of(Spec{}, kHostOnly, Policy::strict(), needs(true, false)).empty());
  const Plan plan = plan_of(transposed, kHostOnly, Policy::host(), needs(true, false));
  EXPECT_EQ(outcome(plan), 'C');
  EXPECT_EQ(plan.reasons, Conditions{Condition::kOrderAsked});
  EXPECT_EQ(plan_of(transposed, kHostOnly, Policy::zero_copy(), needs(true, false)).refused,
            Conditions{Condition::kOrderAsked});
}

TEST(Request, writable_memory_is_a_view_where_it_is_so_and_a_copy_elsewhere) {
  const Request request = needs(false, true);
  EXPECT_TRUE(plan_of(Spec{}, kHostOnly, Policy::strict(), request).empty());
  for (const Condition condition : {Condition::kReadOnly, Condition::kInGraph}) {
    Spec spec;
    spec.conditions = {condition};
    for (const auto* target : {&kHostOnly, &kTorchLike}) {
      const Plan plan = plan_of(spec, *target, Policy::host(), request);
      EXPECT_EQ(outcome(plan), 'C');
      EXPECT_TRUE(plan.writable);
      EXPECT_FALSE(plan.has(Step::kMarkReadOnly));
    }
    EXPECT_EQ(plan_of(spec, kHostOnly, Policy::zero_copy(), request).refused,
              Conditions{Condition::kWritableAsked});
  }
  Spec expanded;
  expanded.strides = {0, 1};
  EXPECT_EQ(outcome(plan_of(expanded, kHostOnly, Policy::host(), request)), 'C');
  EXPECT_EQ(outcome(plan_of(expanded, kTorchLike, Policy::host(), request)), 'C');
  Spec read_only;
  read_only.conditions = {Condition::kReadOnly};
  const Policy alias = Policy::host().with(Field::kReadOnly, Ruling::kAlias);
  EXPECT_EQ(outcome(plan_of(read_only, kTorchLike, alias, request)), 'C');
}

TEST(Request, what_cannot_be_met_is_told_beside_what_else_is_refused) {
  Spec spec;
  spec.conditions = {Condition::kInGraph, Condition::kConjBit};
  EXPECT_EQ(plan_of(spec, kHostOnly, Policy::zero_copy(), needs(false, true)).refused,
            (Conditions{Condition::kConjBit, Condition::kWritableAsked}));
  Capabilities constant = kHostOnly;
  constant.gives_writable = false;
  EXPECT_EQ(plan_of(spec, constant, Policy::zero_copy(), needs(false, true)).refused,
            (Conditions{Condition::kConjBit, Condition::kNothingToWrite}));
  spec.conditions = {Condition::kQuantised};
  EXPECT_EQ(plan_of(spec, kHostOnly, Policy::host(), as_type(DType(kDLFloat8_e3m4, 8))).refused,
            (Conditions{Condition::kQuantised, Condition::kMissingAskedDType}));
}

TEST(Request, of_what_is_no_tensor_yet_only_that_is_told) {
  for (const Condition condition : {Condition::kUninitialised, Condition::kMixedTypes}) {
    Spec spec;
    spec.conditions = {Condition::kInGraph, Condition::kReadOnly, condition};
    const Plan plan = plan_of(spec, kTorchLike, Policy::strict(), as_type(DType(kDLFloat, 64)));
    EXPECT_EQ(plan.refused, Conditions{condition});
    EXPECT_EQ(plan.reasons, Conditions{condition});
    EXPECT_FALSE(plan.view || plan.writable);
  }
}

TEST(Request, writable_memory_is_refused_where_the_target_gives_none) {
  EXPECT_EQ(plan_of(Spec{}, kConstant, Policy::host(), needs(false, true)).refused,
            Conditions{Condition::kNothingToWrite});
}

TEST(Request, a_device_is_reached_where_source_or_target_can_copy_there) {
  const Request to_gpu = on_device(Device(kDLCUDA, 1));
  const Request to_host = on_device(Device{});
  const Plan up = plan_of(Spec{}, kTorchLike, Policy::host(), to_gpu);
  EXPECT_TRUE(up.has(Step::kCopyToDevice));
  EXPECT_EQ(up.device, Device(kDLCUDA, 1));
  Spec on_gpu;
  on_gpu.device = Device(kDLCUDA, 0);
  EXPECT_TRUE(plan_of(on_gpu, kTorchLike, Policy::host(), to_gpu).has(Step::kCopyToDevice));
  const Plan down = plan_of(on_gpu, kTorchLike, Policy::host(), to_host);
  EXPECT_TRUE(down.has(Step::kCopyToHost));
  EXPECT_EQ(down.device, Device{});
  EXPECT_EQ(plan_of(on_gpu, kTorchLike, Policy::zero_copy(), to_host).refused,
            Conditions{Condition::kOtherDevice});
  EXPECT_TRUE(plan_of(on_gpu, kTorchLike, Policy::strict(), on_device(Device(kDLCUDA, 0))).empty());
}

TEST(Request, a_copy_on_a_device_is_a_leg_of_the_producers_or_refused_where_it_makes_none) {
  Spec on_gpu;
  on_gpu.device = Device(kDLCUDA, 0);
  const Plan made = plan_of(on_gpu, kTorchLike, Policy::snapshot());
  ASSERT_EQ(made.leg_count, 1);
  EXPECT_EQ(made.route[0].who, Who::kProducer);
  EXPECT_EQ(made.route[0].to, on_gpu.device);
  on_gpu.copies_there = false;
  EXPECT_EQ(plan_of(on_gpu, kTorchLike, Policy::snapshot()).refused,
            Conditions{Condition::kNoCopyThere});
}

TEST(Request, the_copy_that_a_library_hands_out_is_the_one_that_is_asked_for) {
  Spec spec;
  spec.conditions = {Condition::kCopiesOut};
  spec.is_copy = true;
  spec.copies_there = false;
  const auto carrier = [&spec](const Capabilities& target) {
    const Plan made = plan_of(spec, target, Policy::host());
    EXPECT_EQ(made.leg_count, 1);
    EXPECT_EQ(made.bytes_copied, 24);
    return made.route[0].who;
  };
  Request cast;
  cast.dtype = DType(kDLFloat, 64);
  EXPECT_EQ(carrier(kHostOnly), Who::kProducer);
  EXPECT_EQ(plan_of(spec, kHostOnly, Policy::snapshot()).route[0].who, Who::kProducer);
  EXPECT_EQ(plan_of(spec, kHostOnly, Policy::host(), cast).route[0].who, Who::kEngine);
  Capabilities aligned = kHostOnly;
  aligned.alignment = 64;
  EXPECT_EQ(carrier(aligned), Who::kProducer);
  spec.address += 4;
  EXPECT_EQ(carrier(aligned), Who::kEngine);
  spec.is_copy = false;
  EXPECT_EQ(carrier(kHostOnly), Who::kEngine);
}

TEST(Request, a_library_that_densifies_on_a_device_is_not_asked_for_a_second_leg) {
  Spec spec;
  spec.device = Device(kDLCUDA, 0);
  spec.conditions = {Condition::kSparse, Condition::kSwappedBytes};
  const Policy dense = Policy::host().with(Field::kLayout, Ruling::kDensify);
  EXPECT_EQ(plan_of(spec, kTorchLike, dense).refused, Conditions{Condition::kNoCopyThere});
  spec.conditions.remove(Condition::kSwappedBytes);
  EXPECT_EQ(plan_of(spec, kTorchLike, dense).leg_count, 1);
}

TEST(Request, a_library_without_prepare_is_asked_for_nothing_whatever_is_said_of_it) {
  const auto refused = [](Spec spec, const Capabilities& target, const Policy& policy) {
    spec.can_prepare = false;
    return plan_of(spec, target, policy).refused;
  };
  const Policy dense = Policy::host().with(Field::kLayout, Ruling::kDensify);
  for (const Condition condition :
       {Condition::kSparse, Condition::kOpaqueLayout, Condition::kScattered, Condition::kLazy}) {
    EXPECT_EQ(refused({.conditions = {condition}}, kHostOnly, dense), Conditions{condition});
  }
  const Spec on_gpu{.device = Device(kDLCUDA, 0)};
  EXPECT_EQ(refused(on_gpu, kHostOnly, Policy::host()), Conditions{Condition::kNoWayToDevice});
  EXPECT_EQ(refused(on_gpu, kTorchLike, Policy::snapshot()), Conditions{Condition::kNoCopyThere});
  EXPECT_EQ(refused({.conditions = {Condition::kCopiesOut}, .is_copy = true}, kHostOnly, {}),
            Conditions{});
}

TEST(Request, a_device_that_nobody_can_reach_is_refused_under_every_preset) {
  Spec stuck;
  stuck.device = Device(kDLCUDA, 0);
  stuck.copies_to_host = false;
  for (const auto& preset : kPresets) {
    SCOPED_TRACE(preset.name);
    EXPECT_EQ(plan_of(stuck, kHostOnly, preset.policy).refused,
              Conditions{Condition::kNoWayToDevice});
    EXPECT_EQ(plan_of(Spec{}, kHostOnly, preset.policy, on_device(Device(kDLCUDA, 0))).refused,
              Conditions{Condition::kNoWayToDevice});
  }
}

TEST(Request, no_library_moves_to_memory_of_the_host_that_a_device_reads) {
  for (const int type : {kDLCUDAHost, kDLROCMHost, kDLCUDAManaged}) {
    for (const int from : {kDLCPU, kDLCUDA}) {
      Spec spec;
      spec.device = Device(from, 0);
      const Request there = on_device(Device(type, 0));
      EXPECT_EQ(plan_of(spec, kTorchLike, Policy::host(), there).refused,
                Conditions{Condition::kNoWayToDevice});
    }
  }
}

TEST(Request, pinned_and_managed_memory_is_on_the_host_already) {
  for (const int type : {kDLCUDAHost, kDLROCMHost, kDLCUDAManaged}) {
    Spec spec;
    spec.device = Device(type, 0);
    EXPECT_EQ(outcome(plan_of(spec, kHostOnly, Policy::strict(), on_device(Device{}))), 'V');
  }
}

}  // namespace
}  // namespace dlbridge
