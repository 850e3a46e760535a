#include "lib/plan/plan_cases.hpp"

namespace dlbridge::cases {
namespace {

template <Condition condition>
void has(Spec& spec) {
  spec.conditions.add(condition);
}

// A row that is only a condition its producer names.
template <Condition condition>
Row trait(std::string name, std::string_view cells, Step step = Step::kRepack) {
  const std::string all(cells);
  return {std::move(name), Aspect::kTrait, has<condition>, all, all, all, all, {condition}, step};
}

template <int type>
void lies_on(Spec& spec) {
  spec.device = Device(type, 0);
}

template <int code, int bits>
void has_type(Spec& spec) {
  spec.dtype = DType(code, bits);
}

}  // namespace

const std::vector<Row>& policy_table() {
  using enum Aspect;
  static const std::vector<Row> table = {
      {"plain",
       kTrait,
       [](Spec&) {},
       "VVVC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kCopyAsked},
       Step::kRepack},
      {"in_a_graph",
       kTrait,
       has<Condition::kInGraph>,
       "ROOC",
       "RCRC",
       "RRRC",
       "RCRC",
       {Condition::kInGraph, Condition::kReadOnly},
       Step::kDetach},
      {"forward_mode_dual",
       kTrait,
       has<Condition::kForwardDual>,
       "ROOC",
       "RCRC",
       "RRRC",
       "RCRC",
       {Condition::kForwardDual, Condition::kReadOnly},
       Step::kDetach},
      {"read_only",
       kTrait,
       has<Condition::kReadOnly>,
       "OOOC",
       "RCRC",
       "RRRC",
       "RCRC",
       {Condition::kReadOnly},
       Step::kRepack},
      trait<Condition::kConjBit>("conj_bit", "RCRC", Step::kResolveConj),
      trait<Condition::kNegBit>("neg_bit", "RCRC", Step::kResolveNeg),
      trait<Condition::kZeroTensor>("zero_tensor", "RCRC", Step::kMaterialise),
      trait<Condition::kSwappedBytes>("swapped_bytes", "RCRC", Step::kSwapBytes),
      trait<Condition::kFractionalStrides>("fractional_strides", "RCRC", Step::kRepack),
      trait<Condition::kScattered>("scattered", "RCRC", Step::kGather),
      trait<Condition::kSparse>("sparse", "RRRR"),
      trait<Condition::kOpaqueLayout>("mkldnn", "RRRR"),
      trait<Condition::kQuantised>("quantised", "RRRR"),
      trait<Condition::kNested>("nested", "RRRR"),
      trait<Condition::kMeta>("meta", "RRRR"),
      trait<Condition::kFake>("fake", "RRRR"),
      trait<Condition::kFunctorch>("functorch", "RRRR"),
      trait<Condition::kFunctionalised>("functionalised", "RRRR"),
      trait<Condition::kWrapperSubclass>("wrapper_subclass", "RRRR"),
      trait<Condition::kDispatchSubclass>("dispatch_subclass", "RRRR"),
      trait<Condition::kFreedStorage>("freed_storage", "RRRR"),
      trait<Condition::kNullData>("null_data", "RRRR"),
      trait<Condition::kUninitialised>("uninitialised", "RRRR"),
      trait<Condition::kTraced>("traced", "VVVC"),
      trait<Condition::kMasked>("masked", "RRRR"),
      trait<Condition::kUnit>("unit", "RRRR"),
      trait<Condition::kNulls>("nulls", "RRRR"),
      trait<Condition::kInexpressibleDType>("inexpressible_dtype", "RRRR"),
      trait<Condition::kMixedTypes>("mixed_types", "RRRR"),
      trait<Condition::kPaddedSubByte>("padded_sub_byte", "RRRR"),
      {"on_a_gpu",
       kDevice,
       lies_on<kDLCUDA>,
       "RCRC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kOtherDevice},
       Step::kCopyToHost},
      {"on_metal",
       kDevice,
       lies_on<kDLMetal>,
       "RCRC",
       "RRRR",
       "VVVC",
       "RRRR",
       {Condition::kNoWayToDevice, Condition::kOtherDevice},
       Step::kCopyToHost},
      {"pinned",
       kDevice,
       lies_on<kDLCUDAHost>,
       "VVVC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kOtherDevice},
       Step::kRepack},
      {"pinned_for_rocm",
       kDevice,
       lies_on<kDLROCMHost>,
       "VVVC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kOtherDevice},
       Step::kRepack},
      {"managed_memory",
       kDevice,
       lies_on<kDLCUDAManaged>,
       "VVVC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kOtherDevice},
       Step::kRepack},
      {"bfloat16",
       kDType,
       has_type<kDLBfloat, 16>,
       "RVVC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kMissingDType},
       Step::kRepack},
      {"float8",
       kDType,
       has_type<kDLFloat8_e4m3fn, 8>,
       "RVVC",
       "VVVC",
       "VVVC",
       "VVVC",
       {Condition::kMissingDType},
       Step::kRepack},
      {"dtype_that_nobody_has",
       kDType,
       has_type<kDLFloat8_e3m4, 8>,
       "RRRR",
       "RRRR",
       "VVVC",
       "RRRR",
       {Condition::kMissingDType},
       Step::kRepack},
      {"expanded",
       kLayout,
       [](Spec& spec) {
         spec.strides = {0, 1};
       },
       "OOOC",
       "VVVC",
       "RRRC",
       "RCRC",
       {Condition::kOverlap, Condition::kReadOnly, Condition::kNotCompact},
       Step::kRepack},
      {"sliding_windows",
       kLayout,
       [](Spec& spec) {
         spec.strides = {1, 1};
       },
       "OOOC",
       "VVVC",
       "RRRC",
       "RCRC",
       {Condition::kOverlap, Condition::kReadOnly, Condition::kNotCompact},
       Step::kRepack},
      {"negative_strides",
       kLayout,
       [](Spec& spec) {
         spec.strides = {3, -1};
       },
       "VVVC",
       "RCRC",
       "VVVC",
       "RCRC",
       {Condition::kNegativeStrides, Condition::kNotCompact},
       Step::kRepack},
      {"transposed",
       kLayout,
       [](Spec& spec) {
         spec.strides = {1, 2};
       },
       "VVVC",
       "VVVC",
       "VVVC",
       "RCRC",
       {Condition::kNotCompact},
       Step::kRepack},
      // About the type of the elements: what is misaligned for one is not for another.
      {"elements_at_odd_addresses",
       kDType,
       [](Spec& spec) { spec.address += 1; },
       "VVVC",
       "RCRC",
       "VVVC",
       "RCRC",
       {Condition::kMisaligned},
       Step::kRepack},
      {"misaligned",
       kLayout,
       [](Spec& spec) { spec.byte_offset = 4; },
       "VVVC",
       "VVVC",
       "VVVC",
       "RCRC",
       {Condition::kMisaligned},
       Step::kRepack},
  };
  return table;
}

}  // namespace dlbridge::cases
