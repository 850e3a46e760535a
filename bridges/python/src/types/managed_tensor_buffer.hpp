#pragma once

#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {

/// The buffer protocol of dlbridge.ManagedTensor.
extern PyBufferProcs managed_tensor_buffer;

/// Refuses an export: "cannot export a dlbridge.ManagedTensor {what} ({why}); use {fix}".
[[noreturn]] void refuse_export(const std::string& what, const std::string& why,
                                const std::string& fix);

}  // namespace dlbridge::python
