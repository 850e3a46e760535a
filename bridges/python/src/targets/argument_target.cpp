#include "targets/argument_target.hpp"

#include <string>

namespace dlbridge::python {
namespace {

std::string in_words(DType dtype, std::int32_t ndim) {
  std::string text = dtype.bits == 0 ? std::string("any dtype") : to_string(dtype);
  if (ndim >= 0) {
    text += " of " + std::to_string(ndim) + (ndim == 1 ? " dimension" : " dimensions");
  }
  return text;
}

}  // namespace

void ArgumentTarget::raise_mismatch(const Door& door, const Plan& plan) const {
  const DLTensor& tensor = door.source.tensor;
  raise(PyExc_TypeError, "expected a tensor of " + in_words(parameter.dtype, parameter.ndim) +
                             (parameter.on_device ? " on a device" : "") + ", not a " +
                             std::string(door.source.traits.words().object) + " of " +
                             in_words(tensor.dtype, tensor.ndim) + " on " + to_string(plan.device));
}

}  // namespace dlbridge::python
