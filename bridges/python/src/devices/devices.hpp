#pragma once

// Devices as the module sees them: which runtime reaches them, and on which stream the libraries
// work.

#include <optional>

#include "dlbridge/device_runtime.hpp"
#include "module_functions.hpp"

namespace dlbridge::python {

/// The runtime for that type of device, or null. Those of the package (CUDA's) are loaded when a
/// device of theirs is first met, and only count where they find a driver and a device.
[[nodiscard]] DeviceRuntime* runtime_for(std::int32_t device_type);

/// The stream that torch's work on that device is on now. Throws PythonError.
[[nodiscard]] Stream torch_stream(Device device);

/// Where a torch.Tensor may lie in pinned memory, and does: makes the source say so, and waits for
/// what torch's streams are doing to it (a copy with non_blocking=True). Nothing as long as torch
/// has not used CUDA.
void settle_pinned(Source& source);

/// managed_stream(), with the runtime looked for where it is not there yet.
[[nodiscard]] Stream stream_of_managed(Device device);

/// Managed memory is read by the host where it lies, once its devices are done with it. Where a
/// runtime can wait for the stream alone, this does nothing; where none is, it waits for all.
void wait_without_runtime(Device device);

/// DLPack's number for a stream of a device type, for the keyword `stream`: never None (law 6).
[[nodiscard]] Ref stream_number(std::int32_t device_type, Stream stream);

/// What `stream=` of a caller names: a handle as int, or an object of torch, CuPy or cuda.core that
/// has one. Nothing for None. Throws PythonError with a TypeError.
[[nodiscard]] std::optional<Stream> stream_argument(PyObject* stream);

/// For the module: register_device_runtime(device_type, companion), where the companion is the
/// capsule of an extension, or None to take the runtime away; release_pinned_memory();
/// pinned(dtype, shape) -> ManagedTensor.
Ref register_device_runtime(ArgumentTuple arguments);
Ref release_pinned();
Ref new_pinned(ArgumentTuple arguments);

/// By name of a device type that was asked for: how many devices its runtime reaches, or why there
/// is none.
Ref runtimes_in_words();

}  // namespace dlbridge::python
