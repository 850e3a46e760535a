#pragma once

#include <string>
#include <string_view>

#include "dlbridge/plan.hpp"

namespace dlbridge::detail {

/// The calls that would work where `plan` refuses, ", or " between them; empty where none would.
/// What one of them loses stands behind it in parentheses: "x.filled() (the mask is lost)".
[[nodiscard]] std::string fix(const Plan& plan, const Source& source, const Capabilities& target,
                              const Policy& policy, const Request& request, Dialect dialect);

/// Puts `value` where `name` stands in the text.
void put(std::string& text, std::string_view name, std::string_view value);

}  // namespace dlbridge::detail
