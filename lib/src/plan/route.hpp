#pragma once

#include <initializer_list>
#include <optional>

#include "dlbridge/plan.hpp"

namespace dlbridge::detail {

// The set of some steps, as Plan and Leg hold it.
constexpr std::uint16_t bits_of(std::initializer_list<Step> steps) {
  unsigned bits = 0;
  for (const Step step : steps) {
    bits |= 1U << static_cast<unsigned>(step);
  }
  return static_cast<std::uint16_t>(bits);
}

/// Who takes the memory there: a runtime of ours, then the library at that end; nobody, perhaps.
[[nodiscard]] std::optional<Who> mover(const Source& source, const Capabilities& target,
                                       DeviceSet runtimes, Device there);

/// Lays the legs of a plan that copies, whose steps are known: what only the source's library can
/// do comes first, then one pass over the memory, then what the target's library does with what it
/// is given. `mover`: who takes the memory to another device; `of_consumer`: steps that the
/// target's library does. False where nobody can make the pass: the memory lies on a device without
/// a runtime, and its library does not copy.
[[nodiscard]] bool lay_legs(Plan& plan, const Source& source, const Capabilities& target,
                            DeviceSet runtimes, std::optional<Who> mover,
                            std::uint16_t of_consumer);

}  // namespace dlbridge::detail
