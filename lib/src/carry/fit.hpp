#pragma once

#include "dlbridge/copy.hpp"
#include "dlbridge/plan.hpp"

namespace dlbridge::detail {

/// After a copy, which says whether the target's type held every value. If not, throws
/// ValueOutOfRange for integers, of which the first in C order is looked for now; else sets
/// `warning`, if there is one to set.
void require_held(const CopyJob& job, bool held, CastWarning* warning);

}  // namespace dlbridge::detail
