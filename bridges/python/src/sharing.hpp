#pragma once

// Functions of the module for dlbridge/processes/sharing.py: see _core.pyi.

#include "module_functions.hpp"

namespace dlbridge::python {

Ref shared_target(ArgumentTuple arguments);
Ref shared_bytes(ArgumentTuple arguments);
Ref shared_allocate(ArgumentTuple arguments);
Ref stream_of_managed_in_python(ArgumentTuple arguments);
Ref tensor_over(ArgumentTuple arguments);
Ref pack_shared(ArgumentTuple arguments);
Ref unpack_shared(ArgumentTuple arguments);
Ref send_shared(ArgumentTuple arguments);
Ref receive_shared(ArgumentTuple arguments);

}  // namespace dlbridge::python
