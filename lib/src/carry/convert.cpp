#include "dlbridge/convert.hpp"

namespace dlbridge::detail {

void require_prepared(const Leg& leg, Source& made) {
  Conditions& left = made.traits.conditions;
  for (const Condition harmless :
       {Condition::kInGraph, Condition::kForwardDual, Condition::kReadOnly, Condition::kTraced}) {
    left.remove(harmless);
  }
  const Device found(made.tensor.device);
  const bool there = found == leg.to || (found.host_accessible() && leg.to.host_accessible());
  if (there && left.empty()) {
    return;
  }
  std::string fault = "its library was asked for a plain tensor on " + to_string(leg.to) +
                      ", and gave one on " + to_string(found);
  left.for_each([&](Condition condition) { fault += ", " + std::string(row_of(condition).name); });
  throw ConversionRefused(
      "cannot convert a " + std::string(made.traits.words().object) + ": " + fault, {fault});
}

void refuse_to_prepare(const Source& source) {
  const std::string fault = "its bridge has no prepare(), which this would need";
  throw ConversionRefused(
      "cannot convert a " + std::string(source.traits.words().object) + ": " + fault, {fault});
}

}  // namespace dlbridge::detail
