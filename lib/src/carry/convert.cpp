#include "dlbridge/convert.hpp"

#include <algorithm>

#include "plan/itself.hpp"

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

// Where no dimension is stepped along, a stride says nothing.
bool laid_alike(const DLTensor& acquired, const DLTensor& described) {
  if (described.strides == nullptr) {
    return is_c_contiguous(acquired);
  }
  bool alike = true;
  for (std::int32_t i = 0; i < acquired.ndim; ++i) {
    alike = alike && (acquired.shape[i] < 2 || acquired.strides[i] == described.strides[i]);
  }
  return alike || element_count(acquired) == 0;
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

ManagedTensor as_described(ManagedTensor acquired, const Source& source, bool is_private) {
  if (!acquired) {
    refuse(source, "its bridge acquired nothing");
  }
  const DLTensor& tensor = acquired.tensor();
  const Traits& said = source.traits;
  if (!of_one_kind(tensor, source.tensor) || !same_place(tensor.device, source.tensor.device) ||
      (!said.is_copy && !laid_alike(tensor, source.tensor))) {
    refuse(source, "its bridge acquired another dtype, shape, layout or device than it described");
  }
  // The plan may have promised that it can be written to.
  if (acquired.readonly() && !is_private && !said.conditions.meets(kNotToBeWritten)) {
    refuse(source, "its bridge acquired memory that is read-only, and did not describe it so");
  }
  // What the description says, whoever has the tensor next has to be told as well.
  DLManagedTensorVersioned* managed = acquired.release();
  managed->flags |= flags_of_conditions(said.conditions);
  return ManagedTensor::retake(managed);
}

void require_readable(const ManagedTensor& view, const Source& source, const Capabilities& target) {
  if (!is_aligned(view.tensor(), target) && element_count(view.tensor()) != 0) {
    refuse(source, "it was acquired at an address of which " + std::string(target.name) +
                       " cannot read its elements");
  }
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
