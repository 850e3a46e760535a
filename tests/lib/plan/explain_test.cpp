// A Plan in words: the steps, the reasons, and the call that would work.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "lib/doubles.hpp"
#include "lib/plan/plan_cases.hpp"

namespace dlbridge {
namespace {

using namespace cases;  // NOLINT(google-build-using-namespace): the vocabulary of these tests
using ::testing::ElementsAre;
using ::testing::IsEmpty;

Explanation words(const Spec& spec, const Policy& policy = Policy::strict(),
                  const Capabilities& target = kHostOnly, const Request& request = {}) {
  const Described described(spec);
  return explain(plan(described.source(), target, policy, request), described.source(), target,
                 policy, request, Dialect::kPython);
}

Spec with(Conditions conditions) {
  Spec spec;
  spec.conditions = conditions;
  return spec;
}

TEST(Explain, of_an_empty_plan_says_nothing) {
  const Explanation text = words(Spec{});
  EXPECT_THAT(text.steps, IsEmpty());
  EXPECT_THAT(text.reasons, IsEmpty());
  EXPECT_EQ(text.fix + text.message, "");
}

TEST(Explain, names_the_steps_in_their_order_with_a_reason_each) {
  Spec spec = with({Condition::kInGraph, Condition::kConjBit});
  spec.dtype = DType(kDLComplex, 64);
  const Explanation text = words(spec, Policy::host(), kHostOnly, as_type(DType(kDLComplex, 128)));
  EXPECT_THAT(text.steps, ElementsAre("detach", "resolve conj", "cast"));
  EXPECT_THAT(
      text.reasons,
      ElementsAre("a shelf.Book that requires grad: requires_grad is set, and autograd would not "
                  "see a write through the "
                  "view",
                  "a shelf.Book with the conjugate bit set: its imaginary parts would change sign",
                  "a shelf.Book of dtype complex64: a cast to complex128 was asked for, and a cast "
                  "is a copy"));
  EXPECT_EQ(text.fix + text.message, "");
}

TEST(Explain, has_a_word_for_what_its_bridge_did_not_name) {
  const Described described(with({Condition::kInexpressibleDType}));
  const Capabilities target{.devices = DeviceSet::host()};
  const Policy policy = Policy::strict();
  const Explanation text =
      explain(plan(described.source(), target, policy), described.source(), target, policy);
  EXPECT_EQ(text.message,
            "cannot view a shelf.Book of dtype unknown as the target (DLPack has no such type)");
}

TEST(Explain, of_what_has_no_type_names_none) {
  Spec spec = with({Condition::kQuantised});
  spec.dtype = DType(DLDataType{});
  const Explanation text = words(spec, Policy::strict(), kHostOnly, as_type(DType(kDLFloat, 64)));
  EXPECT_EQ(text.reasons[1], "a cast to float64 was asked for, and a cast is a copy");
  EXPECT_EQ(text.message.find("code=0"), std::string::npos);
}

TEST(Explain, of_a_copy_that_was_asked_for_says_so) {
  const Explanation text = words(Spec{}, Policy::snapshot());
  EXPECT_THAT(text.steps, ElementsAre("repack"));
  EXPECT_THAT(text.reasons, ElementsAre("a copy was asked for"));
}

TEST(Explain, of_a_read_only_view_says_why) {
  Spec spec;
  spec.strides = {0, 1};
  const Explanation text = words(spec, Policy::host());
  EXPECT_THAT(text.steps, ElementsAre("mark read-only"));
  EXPECT_THAT(text.reasons, ElementsAre("a shelf.Book whose elements share memory: one write "
                                        "would change several of them"));
}

TEST(Explain, of_a_view_for_a_target_that_takes_memory_as_constant_notes_that_it_may_change) {
  const Explanation text = words(Spec{}, Policy::host(), kConstant);
  EXPECT_THAT(text.notes, ElementsAre("Rock takes memory as constant, and a later write would "
                                      "change what it computes"));
  EXPECT_THAT(text.reasons, IsEmpty());
  EXPECT_THAT(text.steps, IsEmpty());
  EXPECT_THAT(words(with({Condition::kReadOnly}), Policy::host(), kConstant).notes, IsEmpty());
  EXPECT_THAT(words(Spec{}, Policy::snapshot(), kConstant).notes, IsEmpty());
}

struct RefusalCase {
  Spec spec;
  Policy policy;
  const Capabilities& target;
  Request request;
  std::string message;
  std::string fix;
};

Spec typed(DType dtype) {
  Spec spec;
  spec.dtype = dtype;
  return spec;
}

Spec lying(Device device) {
  Spec spec;
  spec.device = device;
  return spec;
}

Request on(Device device) {
  Request request;
  request.device = device;
  return request;
}

Request without_copy() {
  Request request;
  request.copy_was_argument = true;
  return request;
}

TEST(Explain, of_a_refusal_says_what_was_met_why_and_what_works) {
  Spec detailed = with({Condition::kInexpressibleDType});
  detailed.detail = "StringDType()";
  detailed.fix = "x.astype(\"float64\")";
  Spec odd = typed({kDLComplex, 128});
  odd.byte_offset = 8;
  const RefusalCase refusals[] = {
      {odd,
       Policy::zero_copy(),
       kTorchLike,
       {},
       "cannot view a shelf.Book at an address that is no multiple of 16 bytes as Flame (Flame "
       "needs that alignment); use policy=\"host\" to copy",
       "policy=\"host\" to copy"},
      {Spec{},
       Policy::strict(),
       kConstant,
       {},
       "cannot view a shelf.Book that may still be written to as Rock (Rock takes memory as "
       "constant, and a later write would change what it computes); use policy=\"host\" for a "
       "read-only view",
       "policy=\"host\" for a read-only view"},
      {with({Condition::kInGraph}),
       Policy::strict(),
       kHostOnly,
       {},
       "cannot view a shelf.Book that requires grad as Host (requires_grad is set, and autograd "
       "would not see a write "
       "through the view); use policy=\"host\" for a read-only view, or x.detach()",
       "policy=\"host\" for a read-only view, or x.detach()"},
      {with({Condition::kInGraph, Condition::kDispatchSubclass}),
       Policy::strict(),
       kHostOnly,
       {},
       "cannot view a shelf.Book that requires grad and of a subclass with __torch_dispatch__ "
       "(unknown) "
       "as Host (requires_grad is set, and autograd would not see a write through the view; its "
       "own rules for what its values are would be passed by); use "
       "copied(x.detach(), x.detach().size)",
       "copied(x.detach(), x.detach().size)"},
      {with({Condition::kConjBit, Condition::kNegBit}),
       Policy::strict(),
       kHostOnly,
       {},
       "cannot view a shelf.Book with the conjugate bit set and with the negative bit set as Host "
       "(its imaginary parts would change sign; its values would change sign); use policy=\"host\" "
       "to copy",
       "policy=\"host\" to copy"},
      {with({Condition::kConjBit}), Policy::zero_copy(), kHostOnly, without_copy(),
       "cannot view a shelf.Book with the conjugate bit set as Host (its imaginary parts would "
       "change sign); use the call without copy=False to copy, or x.resolve_conj()",
       "the call without copy=False to copy, or x.resolve_conj()"},
      {with({Condition::kSparse}),
       Policy::snapshot(),
       kHostOnly,
       {},
       "cannot convert a shelf.Book with a sparse layout as Host (its values do not lie where "
       "shape and strides would say); use policy=dlbridge.host.replace(layout=\"densify\") to copy",
       "policy=dlbridge.host.replace(layout=\"densify\") to copy"},
      {with({Condition::kQuantised}),
       Policy::host(),
       kHostOnly,
       {},
       "cannot view a shelf.Book that is quantised as Host (its integers mean nothing without "
       "their scale and zero point); use x.dequantize()",
       "x.dequantize()"},
      {with({Condition::kMeta}),
       Policy::host(),
       kHostOnly,
       {},
       "cannot view a shelf.Book on the meta device as Host (it has a shape but no values)",
       ""},
      {detailed,
       Policy::host(),
       kHostOnly,
       {},
       "cannot view a shelf.Book of dtype StringDType() as Host (DLPack has no such type); use "
       "x.astype(\"float64\")",
       "x.astype(\"float64\")"},
      {typed({kDLFloat8_e3m4, 8}),
       Policy::host(),
       kHostOnly,
       {},
       "cannot view a shelf.Book of dtype float8_e3m4 as Host (Host has no such type); use "
       "policy=dlbridge.host.replace(dtype=\"upcast\") to copy",
       "policy=dlbridge.host.replace(dtype=\"upcast\") to copy"},
      {typed({kDLOpaqueHandle, 64}),
       Policy::host(),
       kHostOnly,
       {},
       "cannot view a shelf.Book of dtype opaque64 as Host (Host has no such type); use "
       "policy=dlbridge.host.replace(dtype=\"bits\") (its bits as integers)",
       "policy=dlbridge.host.replace(dtype=\"bits\") (its bits as integers)"},
      {lying({kDLCUDA, 1}),
       Policy::zero_copy(),
       kHostOnly,
       {},
       "cannot view a shelf.Book on cuda:1 as Host (the target is on cpu); use policy=\"host\" to "
       "copy, or x.home()",
       "policy=\"host\" to copy, or x.home()"},
      {Spec{}, Policy::zero_copy(), kTorchLike, on({kDLCUDA, 1}),
       "cannot view a shelf.Book on cpu as Flame (the target is on cuda:1); use policy=\"host\" to "
       "copy",
       "policy=\"host\" to copy"},
      {lying({kDLMetal, 0}),
       Policy::host(),
       kTorchLike,
       {},
       "cannot view a shelf.Book on metal:0 as Flame (Flame cannot use that memory)",
       ""},
      {with({Condition::kReadOnly}),
       Policy::zero_copy(),
       kTorchLike,
       {},
       "cannot view a shelf.Book that nobody may write to as Flame (Flame does not know read-only "
       "memory); use policy=\"host\" to copy",
       "policy=\"host\" to copy"},
      {with({Condition::kReadOnly}),
       Policy::host(),
       kLegacyLike,
       {},
       "cannot view a shelf.Book that nobody may write to as a legacy capsule (a legacy capsule "
       "does not know read-only memory); use max_version=(1, 3), or policy=\"snapshot\" to copy",
       "max_version=(1, 3), or policy=\"snapshot\" to copy"},
      {Spec{}, Policy::zero_copy(), kHostOnly, as_type({kDLFloat, 64}),
       "cannot view a shelf.Book of dtype float32 as Host (a cast to float64 was asked for, and a "
       "cast is a copy); "
       "use policy=\"host\" to copy",
       "policy=\"host\" to copy"},
      {Spec{}, Policy::host(), kHostOnly, as_type({kDLFloat8_e5m2, 8}),
       "cannot view a shelf.Book of dtype float32 as Host (Host has no dtype float8_e5m2, which "
       "was "
       "asked for)",
       ""},
      {typed({kDLComplex, 64}), Policy::host(), kHostOnly, as_type({kDLFloat, 32}),
       "cannot view a shelf.Book of dtype complex64 as Host (there is no cast to the dtype float32 "
       "that was asked for)",
       ""},
  };
  for (const auto& refusal : refusals) {
    const Explanation text = words(refusal.spec, refusal.policy, refusal.target, refusal.request);
    EXPECT_EQ(text.message, refusal.message);
    EXPECT_EQ(text.fix, refusal.fix);
    EXPECT_THAT(text.steps, IsEmpty());
  }
}

// Its library's copy may be written to, which such a target refuses as well.
TEST(Explain, advises_no_writable_copy_to_whoever_takes_constants_alone) {
  static constexpr Library kStone{
      .name = "stone", .object = "stone.Slab", .fixes = {{{Condition::kReadOnly, "x.copied()"}}}};
  Source source;
  Described described(with({Condition::kReadOnly}));
  source.traits = described.source().traits;
  source.traits.library = &kStone;
  source.tensor = described.source().tensor;
  Capabilities target = kCompact;
  const Policy strict = Policy::strict().with_copy(CopyRule::kAlways);
  const auto fix = [&] {
    return explain(plan(source, target, strict), source, target, strict, {}, Dialect::kPython).fix;
  };
  EXPECT_EQ(fix(), "policy=\"host\" to copy, or x.copied()");
  target.takes_as_constant = true;
  EXPECT_EQ(fix(), "policy=\"host\" to copy");
}

TEST(Explain, becomes_the_exception_word_for_word) {
  const Described described(with({Condition::kInGraph, Condition::kSparse}));
  const Policy policy = Policy::strict();
  const Plan plan = dlbridge::plan(described.source(), kHostOnly, policy);
  const Explanation text = explain(plan, described.source(), kHostOnly, policy);
  const ConversionRefused refused = refusal(plan, described.source(), kHostOnly, policy);
  EXPECT_EQ(refused.what(), text.message);
  EXPECT_EQ(refused.reasons, text.reasons);
  EXPECT_EQ(refused.fix, text.fix);
  EXPECT_THAT(refused.reasons, ::testing::SizeIs(2));
}

TEST(Explain, tells_programs_in_cpp_the_calls_of_cpp) {
  const Capabilities& target = kHostOnly;
  const struct {
    Spec spec;
    Policy policy;
    const char* fix;
  } cases[] = {
      {with({Condition::kInGraph}), Policy::strict(),
       "Policy::host() for a read-only view, or x.detach()"},
      {with({Condition::kSparse}), Policy::host(),
       "Policy::host().with(Field::kLayout, Ruling::kDensify) to copy"},
      {typed(DType(kDLFloat8_e5m2, 8)), Policy::host(),
       "Policy::host().with(Field::kDType, Ruling::kUpcast) to copy"},
  };
  for (const auto& each : cases) {
    const Described described(each.spec);
    const Plan decided = plan(described.source(), target, each.policy);
    EXPECT_EQ(explain(decided, described.source(), target, each.policy).fix, each.fix);
  }
}

// What a fix promises must come true: the outcome of the named policy is the one it names.
TEST(Explain, gives_fixes_that_work) {
  struct Way {
    std::string words;
    Policy policy;
  };
  const Way ways[] = {
      {"policy=\"host\"", Policy::host()},
      {"policy=dlbridge.host.replace(layout=\"densify\")",
       Policy::host().with(Field::kLayout, Ruling::kDensify)},
      {"policy=dlbridge.host.replace(dtype=\"upcast\")",
       Policy::host().with(Field::kDType, Ruling::kUpcast)},
      {"policy=dlbridge.host.replace(dtype=\"bits\")",
       Policy::host().with(Field::kDType, Ruling::kBits)},
      {"max_version=(1, 3), or policy=\"snapshot\"", Policy::snapshot()},
  };
  int tried = 0;
  for (const auto& row : policy_table()) {
    for (const Capabilities* target : {&kHostOnly, &kTorchLike, &kLegacyLike, &kCompact}) {
      for (const auto& preset : kPresets) {
        Spec spec;
        row.make(spec);
        const std::string fix = words(spec, preset.policy, *target).fix;
        for (const auto& way : ways) {
          if (fix.rfind(way.words, 0) != 0) {
            continue;
          }
          const char expected = fix.find(" to copy") != std::string::npos                ? 'C'
                                : fix.find(" for a read-only view") != std::string::npos ? 'O'
                                                                                         : 'V';
          EXPECT_EQ(outcome(plan_of(spec, *target, way.policy)), expected)
              << row.name << " to " << target->name << " under " << preset.name << ": " << fix;
          ++tried;
        }
      }
    }
  }
  EXPECT_GT(tried, 40);
}

}  // namespace
}  // namespace dlbridge
