#include "dlbridge/convert.hpp"

#include <algorithm>

namespace dlbridge::detail {
namespace {

[[noreturn]] void refuse(const Source& source, const std::string& fault) {
  throw ConversionRefused(
      "cannot convert a " + std::string(source.traits.words().object) + ": " + fault, {fault});
}

// Memory of the host has several names.
bool same_place(Device a, Device b) {
  return a == b || (a.host_accessible() && b.host_accessible());
}

bool of_one_kind(const DLTensor& a, const DLTensor& b) {
  return DType(a.dtype) == DType(b.dtype) && a.ndim == b.ndim &&
         std::equal(a.shape, a.shape + a.ndim, b.shape);
}

}  // namespace

void require_dimensions(const Source& source) {
  const DLTensor& tensor = source.tensor;
  if (tensor.ndim < 0 || (tensor.ndim > 0 && tensor.shape == nullptr)) {
    throw MalformedTensor(tensor_fault(tensor));
  }
}

ManagedTensor as_described(ManagedTensor acquired, const Source& source) {
  if (!acquired) {
    refuse(source, "its bridge acquired nothing");
  }
  const DLTensor& tensor = acquired.tensor();
  if (!of_one_kind(tensor, source.tensor) || !same_place(tensor.device, source.tensor.device)) {
    refuse(source, "its bridge acquired another dtype, shape or device than it described");
  }
  // What the description says, whoever has the tensor next has to be told as well.
  DLManagedTensorVersioned* managed = acquired.release();
  managed->flags |= flags_of_conditions(source.traits.conditions);
  return ManagedTensor::retake(managed);
}

void require_prepared(const Leg& leg, const Source& asked, Source& made) {
  require_dimensions(made);
  Conditions& left = made.traits.conditions;
  for (const Condition harmless :
       {Condition::kInGraph, Condition::kForwardDual, Condition::kReadOnly, Condition::kTraced}) {
    left.remove(harmless);
  }
  const Device found(made.tensor.device);
  const bool there = same_place(found, leg.to);
  const bool alike = of_one_kind(asked.tensor, made.tensor);
  if (there && alike && left.empty()) {
    return;
  }
  std::string fault = "its library was asked for a plain tensor on " + to_string(leg.to) +
                      ", and gave one on " + to_string(found) +
                      (alike ? "" : " of another dtype or shape");
  left.for_each([&](Condition condition) { fault += ", " + std::string(row_of(condition).name); });
  refuse(made, fault);
}

void refuse_to_prepare(const Source& source) {
  refuse(source, "its bridge has no prepare(), which this would need");
}

}  // namespace dlbridge::detail
