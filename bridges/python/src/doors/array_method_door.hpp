#pragma once

#include "doors/door.hpp"

namespace dlbridge::python {

/// Makes of the advice for an array the one for the object that NumPy makes an array of.
void advise_by_array(Source& source);

/// A new array of what a door of kArrayMethodWay reads, by NumPy, for what no managed tensor holds.
[[nodiscard]] Ref array_made_for(const Door& door);

}  // namespace dlbridge::python
