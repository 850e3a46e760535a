#pragma once

namespace dlbridge::python {

/// Makes the end of a torch.Tensor cheap for memory that came from here; needs torch to be
/// imported. Does its work once. Throws PythonError.
///
/// torch gives up the GIL while it lets go of a tensor's memory (THPVariable_clear, torch 2.15), so
/// a reference to the array below had to go through the interpreter's list of pending calls, which
/// takes longer than the rest of the crossing. So a function of ours goes before the deallocator of
/// torch._C.TensorBase: what is given back inside of it waits for its end, where the GIL is held.
void watch_tensor_deallocation();

}  // namespace dlbridge::python
