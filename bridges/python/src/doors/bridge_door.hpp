#pragma once

#include "dlbridge/python.hpp"
#include "doors/ways.hpp"

namespace dlbridge::python {

/// The way into the objects of a bridge of C++; lives as long as the process.
[[nodiscard]] const Way& way_of_bridge(const detail::BridgeRow& bridge);

}  // namespace dlbridge::python
