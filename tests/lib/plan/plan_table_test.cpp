// Every cell of the policy table, for four kinds of target.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using namespace cases;  // NOLINT(google-build-using-namespace): the vocabulary of these tests

struct Target {
  std::string_view name;
  const Capabilities& capabilities;
  std::string Row::*cells;
};
constexpr std::array<Target, 4> kTargets = {{{"host only", kHostOnly, &Row::host},
                                             {"torch-like", kTorchLike, &Row::torch},
                                             {"legacy-like", kLegacyLike, &Row::legacy},
                                             {"compact", kCompact, &Row::compact}}};

std::string trace(const Target& target, const Preset& preset) {
  return std::string(target.name) + " under " + std::string(preset.name);
}

class PolicyTable : public ::testing::TestWithParam<Row> {
 protected:
  [[nodiscard]] static Spec spec() {
    Spec spec;
    GetParam().make(spec);
    return spec;
  }
  // Calls visit(cell, plan, preset) for every cell of the row.
  template <typename Visit>
  static void for_each_cell(Visit&& visit) {
    for (const auto& target : kTargets) {
      for (std::size_t i = 0; i < kPresets.size(); ++i) {
        SCOPED_TRACE(trace(target, kPresets[i]));
        visit((GetParam().*target.cells)[i],
              plan_of(spec(), target.capabilities, kPresets[i].policy), kPresets[i]);
      }
    }
  }
};

TEST_P(PolicyTable, has_the_outcome_of_every_cell) {
  for_each_cell([](char cell, const Plan& plan, const Preset& /*preset*/) {
    EXPECT_EQ(outcome(plan), cell);
  });
}

TEST_P(PolicyTable, names_its_conditions_and_no_others_where_it_refuses_and_has_no_steps_then) {
  for_each_cell([](char cell, const Plan& plan, const Preset& /*preset*/) {
    if (cell == 'R') {
      EXPECT_TRUE(plan.refused.meets(GetParam().refusing));
      plan.refused.for_each([](Condition condition) {
        EXPECT_TRUE(GetParam().refusing.has(condition)) << static_cast<int>(condition);
      });
      EXPECT_EQ(plan.steps, 0);
      EXPECT_FALSE(plan.view);
      EXPECT_FALSE(plan.writable);
      EXPECT_EQ(plan.bytes_copied, 0);
    }
  });
}

TEST_P(PolicyTable, takes_its_step_where_it_copies_and_the_copy_is_private) {
  for_each_cell([](char cell, const Plan& plan, const Preset& preset) {
    if (cell == 'C') {
      if (preset.name == "host") {
        EXPECT_TRUE(plan.has(GetParam().step));
      }
      EXPECT_TRUE(plan.writable);
      EXPECT_FALSE(plan.has(Step::kMarkReadOnly));
      EXPECT_EQ(plan.bytes_copied, 6 * plan.dtype.itemsize());
    } else {
      EXPECT_EQ(plan.bytes_copied, 0);
    }
  });
}

TEST_P(PolicyTable, marks_a_view_read_only_where_its_source_is_not) {
  for_each_cell([](char cell, const Plan& plan, const Preset& /*preset*/) {
    EXPECT_EQ(plan.has(Step::kMarkReadOnly), cell == 'O' && GetParam().name != "read_only");
  });
}

INSTANTIATE_TEST_SUITE_P(Row, PolicyTable, ::testing::ValuesIn(policy_table()),
                         [](const auto& test) { return test.param.name; });

TEST(PolicyTable, plain_objects_have_an_empty_plan) {
  for (const auto& target : kTargets) {
    for (const auto& preset : kPresets) {
      SCOPED_TRACE(trace(target, preset));
      const Plan plan = plan_of(Spec{}, target.capabilities, preset.policy);
      EXPECT_EQ(plan.empty(), preset.name != "snapshot");
    }
  }
}

int severity(char cell) {
  return static_cast<int>(std::string("VOCR").find(cell));
}

// Refuse over copy over read-only view over view. A legacy capsule is left out: whether read-only
// memory leaves in it depends on whether any memory of the source does.
TEST(PolicyTable, the_most_restrictive_cell_wins_where_two_rows_meet) {
  int pairs = 0;
  for (const auto& one : policy_table()) {
    for (const auto& other : policy_table()) {
      if (one.aspect == other.aspect && one.aspect != Aspect::kTrait) {
        continue;
      }
      Spec both;
      one.make(both);
      other.make(both);
      ++pairs;
      for (const auto& target : kTargets) {
        if (target.capabilities.readonly == ReadOnlySupport::kNever) {
          continue;
        }
        for (std::size_t i = 0; i < kPresets.size(); ++i) {
          const char expected = std::max((one.*target.cells)[i], (other.*target.cells)[i],
                                         [](char a, char b) { return severity(a) < severity(b); });
          EXPECT_EQ(outcome(plan_of(both, target.capabilities, kPresets[i].policy)), expected)
              << one.name << " and " << other.name << ": " << trace(target, kPresets[i]);
        }
      }
    }
  }
  EXPECT_GT(pairs, 1000);
}

TEST(PolicyTable, every_refusal_is_named_where_several_rows_refuse) {
  Spec spec;
  spec.conditions = {Condition::kInGraph, Condition::kConjBit, Condition::kSparse};
  spec.dtype = DType(kDLBfloat, 16);
  spec.device = Device(kDLCUDA, 0);
  const Plan plan = plan_of(spec, kHostOnly, Policy::strict());
  EXPECT_EQ(plan.refused, (Conditions{Condition::kInGraph, Condition::kConjBit, Condition::kSparse,
                                      Condition::kMissingDType, Condition::kOtherDevice}));
}

TEST(PolicyTable, more_dimensions_than_the_target_takes_are_refused_everywhere) {
  Capabilities narrow = kHostOnly;
  narrow.max_dimensions = 32;
  Spec spec;
  spec.shape.assign(33, 1);
  spec.strides.assign(33, 1);
  for (const auto& preset : kPresets) {
    EXPECT_EQ(plan_of(spec, narrow, preset.policy).refused,
              Conditions{Condition::kTooManyDimensions});
    EXPECT_FALSE(plan_of(spec, kHostOnly, preset.policy).is_refused());
  }
}

TEST(PolicyTable, without_ml_dtypes_bfloat16_is_refused_under_every_preset) {
  Capabilities bare = kHostOnly;
  bare.extension_dtypes = {};
  Spec spec;
  spec.dtype = DType(kDLBfloat, 16);
  for (const auto& preset : kPresets) {
    EXPECT_EQ(plan_of(spec, bare, preset.policy).refused, Conditions{Condition::kMissingDType});
  }
}

// Of an element every address counts, not of the first alone: what its neighbour cannot keep, as of
// 12 bytes, it does not need.
TEST(PolicyTable, elements_of_every_type_are_taken_where_they_can_be_loaded) {
  std::vector<DType> types{{kDLFloat, 32, 2},   {kDLFloat, 32, 3}, {kDLFloat, 32, 4},
                           {kDLComplex, 64, 2}, {kDLInt, 24},      {kDLInt, 48}};
  for (const auto& row : kNamedDTypes) {
    types.push_back(row.dtype);
  }
  Capabilities loads = kTorchLike;
  loads.dtypes = DTypeSet::everything();
  Capabilities reads = loads;
  reads.reads_unaligned = true;
  int misaligned = 0;
  for (const DType dtype : types) {
    for (std::uintptr_t offset = 0; offset < 64; ++offset) {
      SCOPED_TRACE(to_string(dtype) + " at " + std::to_string(offset));
      Spec spec;
      spec.dtype = dtype;
      spec.address += offset;
      std::int64_t size = dtype.element_bits();
      std::uintptr_t needed = 1;
      for (; size % 16 == 0; size /= 2) {
        needed *= 2;
      }
      const bool aligned = offset % needed == 0;
      misaligned += aligned ? 0 : 1;
      EXPECT_EQ(outcome(plan_of(spec, loads, Policy::host())), aligned ? 'V' : 'C');
      EXPECT_EQ(outcome(plan_of(spec, reads, Policy::host())), 'V');
    }
  }
  EXPECT_GT(misaligned, 500);
}

TEST(PolicyTable, an_alignment_of_its_own_stands_beside_that_of_the_elements) {
  Capabilities two = kTorchLike;
  two.alignment = 2;
  for (const bool any : {false, true}) {
    two.reads_unaligned = any;
    for (std::uint64_t offset = 0; offset < 8; ++offset) {
      Spec spec;
      spec.byte_offset = offset;
      EXPECT_EQ(outcome(plan_of(spec, two, Policy::host())),
                offset % (any ? 2 : 4) == 0 ? 'V' : 'C')
          << offset << any;
    }
  }
}

struct ConstantCase {
  std::string_view row;
  std::string_view cells;
};

TEST(PolicyTable, memory_that_may_change_is_noted_where_the_target_takes_it_as_constant) {
  constexpr ConstantCase kCases[] = {
      {"plain", "ROOC"},         {"in_a_graph", "ROOC"}, {"read_only", "OOOC"},
      {"expanded", "ROOC"},      {"conj_bit", "RCRC"},   {"elements_at_odd_addresses", "RCRC"},
      {"transposed", "ROOC"},    {"on_a_gpu", "ROOC"},   {"quantised", "RRRR"},
      {"freed_storage", "RRRR"},
  };
  for (const auto& test : kCases) {
    const auto& table = policy_table();
    const auto row = std::find_if(table.begin(), table.end(),
                                  [&](const Row& each) { return each.name == test.row; });
    ASSERT_NE(row, table.end()) << test.row;
    for (std::size_t i = 0; i < kPresets.size(); ++i) {
      SCOPED_TRACE(std::string(test.row) + " under " + std::string(kPresets[i].name));
      Spec spec;
      row->make(spec);
      const Plan plan = plan_of(spec, kConstant, kPresets[i].policy);
      EXPECT_EQ(outcome(plan), test.cells[i]);
      const bool noted = test.cells[i] == 'O' && test.row != "read_only";
      EXPECT_EQ(plan.noted, noted ? Conditions{Condition::kMutable} : Conditions{});
      EXPECT_FALSE(plan.reasons.has(Condition::kMutable) && !plan.is_refused());
    }
  }
}

TEST(PolicyTable, objects_without_elements_need_no_alignment_and_no_layout) {
  Spec spec;
  spec.shape = {0, 3};
  spec.strides = {-7, 0};
  spec.address = 1;
  for (const auto& target : kTargets) {
    EXPECT_EQ(outcome(plan_of(spec, target.capabilities, Policy::strict())), 'V');
  }
}

TEST(PolicyTable, a_negative_stride_along_one_element_is_none) {
  Spec spec;
  spec.shape = {1, 3};
  spec.strides = {-3, 2};
  EXPECT_EQ(outcome(plan_of(spec, kTorchLike, Policy::strict())), 'V');
}

}  // namespace
}  // namespace dlbridge
