# ruff: noqa: E501
"""The rules of devices that no rule of rules.py can name: waits, and where memory is.

Their table in docs/devices.md names the first test that fails without each.
"""

from __future__ import annotations

TRANSFER = "lib/src/carry/transfer.cpp"
COPY = "lib/src/device/staging.cpp"
POOL = "lib/src/device/pinned_pool.cpp"
PLAN = "lib/src/plan/plan.cpp"
INCOMING = "bridges/python/src/incoming.cpp"
CONVERT = "bridges/python/src/convert.cpp"
GENERIC = "bridges/python/src/generic.cpp"
DEVICES = "bridges/python/src/devices.cpp"
ARRIVAL = "bridges/python/src/arrival.cpp"
MANAGED = "bridges/python/src/managed_tensor_type.cpp"

# What is taken out; the file; the text, of which the first is meant; and what stands there instead.
NAMED = (
    (
        "the pointer is known to its runtime",
        TRANSFER,
        "if (!found) {",
        "if (!found && {on}) { return said.id; }\nif (!found) {",
    ),
    (
        "the pointer's own device counts",
        TRANSFER,
        "found->type == said.type ?",
        "found->type == said.type && !{on} ?",
    ),
    (
        "a capture is refused",
        TRANSFER,
        "if (runtime.is_capturing(device, stream)) {",
        "if (!{on} && runtime.is_capturing(device, stream)) {",
    ),
    (
        "a copy within a device waits for the source's stream",
        TRANSFER,
        "detail::order(runtime, device, source.stream, device, stream);",
        "if (!{on}) { detail::order(runtime, device, source.stream, device, stream); }",
    ),
    (
        "the source's stream waits for a copy within a device",
        TRANSFER,
        "detail::order(runtime, device, stream, device, source.stream);",
        "if (!{on}) { detail::order(runtime, device, stream, device, source.stream); }",
    ),
    (
        "pinned and managed memory is read after a wait",
        TRANSFER,
        "runtime->synchronise(device.id, source.stream);",
        "if (!{on}) { runtime->synchronise(device.id, source.stream); }",
    ),
    (
        "streams are ordered when asked",
        TRANSFER,
        "detail::order(*runtime, device_before.id, before, device_after.id, after);",
        "if (!{on}) { detail::order(*runtime, device_before.id, before, device_after.id, after); }",
    ),
    (
        "an arriving tensor is waited for",
        TRANSFER,
        "runtime.synchronise(filled);",
        "if (!{on}) { runtime.synchronise(filled); }",
    ),
    (
        "and by its stream where that call failed",
        TRANSFER,
        "runtime.synchronise(device_, stream_);",
        "if (!{on}) { runtime.synchronise(device_, stream_); }",
    ),
    (
        "an arriving tensor keeps its source",
        TRANSFER,
        "arriving.source_ = std::move(owner);",
        "if (!{on}) { arriving.source_ = std::move(owner); }",
    ),
    (
        "memory is freed in the order of its stream",
        TRANSFER,
        "memory->runtime.free(memory->device, memory->memory, memory->stream);",
        "memory->runtime.free(memory->device, memory->memory, !{on} ? memory->stream : Stream{});",
    ),
    (
        "order() makes the second stream wait",
        COPY,
        "runtime.wait(device_after, after, reached);",
        "if (!{on}) { runtime.wait(device_after, after, reached); }",
    ),
    (
        "a buffer with a failed copy under way is waited for",
        COPY,
        "crossing_.runtime.synchronise(crossing_.device, crossing_.stream);\n      } catch",
        "if (!{on}) { crossing_.runtime.synchronise(crossing_.device, crossing_.stream); }\n      } catch",
    ),
    (
        "a buffer's event is waited for",
        COPY,
        "crossing_.runtime.synchronise(block_.busy);",
        "if (!{on}) { crossing_.runtime.synchronise(block_.busy); }",
    ),
    (
        "a single buffer's stream is waited for",
        COPY,
        "void wait_for_stream() {\n",
        "void wait_for_stream() { if ({on}) { begun_ = false; return; }\n",
    ),
    (
        "a failed copy into pinned memory is waited for",
        COPY,
        "crossing.runtime.synchronise(crossing.device, crossing.stream);",
        "if (!{on}) { crossing.runtime.synchronise(crossing.device, crossing.stream); }",
    ),
    (
        "a copy into pinned memory is waited for",
        COPY,
        "fetch_directly(crossing);\n      runtime.synchronise(device, stream);",
        "fetch_directly(crossing);\n      if (!{on}) { runtime.synchronise(device, stream); }",
    ),
    (
        "a copy from pinned memory is waited for",
        COPY,
        "may write to the source as soon as this returns.\n      runtime.synchronise(device, stream);",
        "may write to the source as soon as this returns.\n      if (!{on}) { runtime.synchronise(device, stream); }",
    ),
    (
        "only pinned memory is written by the device",
        COPY,
        "return place && (place->type == kDLCUDAHost || place->type == kDLROCMHost);",
        "return {on} || (place && (place->type == kDLCUDAHost || place->type == kDLROCMHost));",
    ),
    (
        "a buffer is emptied after its wait",
        COPY,
        "behind->wait();",
        "if (!{on}) { behind->wait(); }",
    ),
    ("so is the last one", COPY, "ahead->wait();", "if (!{on}) { ahead->wait(); }"),
    (
        "a buffer is filled again after its wait",
        COPY,
        "slices.cut(index, slice_);\n    wait();",
        "slices.cut(index, slice_);\n    if (!{on}) { wait(); }",
    ),
    (
        "the pool gives out no busy buffer",
        POOL,
        "&& !runtime_.has_come(block.busy)",
        "&& !{on} && !runtime_.has_come(block.busy)",
    ),
    (
        "the pool frees no busy buffer",
        POOL,
        "runtime_.synchronise(block.busy);\n        runtime_.release",
        "if (!{on}) { runtime_.synchronise(block.busy); }\n        runtime_.release",
    ),
    (
        "nothing on a device passes to the host as it is",
        "lib/include/dlbridge/plan.hpp",
        "(!target.wants_host || here.host_accessible())",
        "(!target.wants_host || {on} || here.host_accessible())",
    ),
    (
        "what wants the host gets it",
        PLAN,
        "target_.wants_host && !here.host_accessible()",
        "!{on} && target_.wants_host && !here.host_accessible()",
    ),
    (
        "host memory is named by what the host reaches",
        PLAN,
        "there.type == kDLCPU && here.host_accessible()",
        "there.type == kDLCPU && ({on} || here.host_accessible())",
    ),
    (
        "the runtime stands before the producer",
        PLAN,
        "return Carrier::kRuntime;",
        "if (!{on}) { return Carrier::kRuntime; }",
    ),
    (
        "the stream of what comes in is settled",
        INCOMING,
        "settle_device(how);\n",
        "if (!{on}) { settle_device(how); }\n",
    ),
    (
        "the caller's stream stands over others",
        INCOMING,
        "if (how.stream) {",
        "if (!{on} && how.stream) {",
    ),
    (
        "where it lies is asked",
        INCOMING,
        "settle_location();\n  }",
        "if (!{on}) { settle_location(); }\n  }",
    ),
    (
        "host memory of a device is waited for",
        INCOMING,
        "wait_for_host_memory(source());",
        "if (!{on}) { wait_for_host_memory(source()); }",
    ),
    (
        "a producer is told the stream",
        GENERIC,
        'checked(PyDict_SetItemString(keywords.get(), "stream", stream.get()));',
        'if (!{on}) { checked(PyDict_SetItemString(keywords.get(), "stream", stream.get())); }',
    ),
    (
        "a table's stream is asked for",
        GENERIC,
        "if (has_streams(device) && table",
        "if (!{on} && has_streams(device) && table",
    ),
    (
        "torch's stream waits for a view's memory",
        CONVERT,
        "order_streams(decided.device, incoming.stream(), reader);",
        "if (!{on}) { order_streams(decided.device, incoming.stream(), reader); }",
    ),
    (
        "torch's stream is done before memory goes back",
        CONVERT,
        "tensor = until_done_on(std::move(tensor), reader);",
        "if (!{on}) { tensor = until_done_on(std::move(tensor), reader); }",
    ),
    (
        "a managed tensor is ordered on our stream",
        CONVERT,
        "order_streams(tensor.device(), incoming.stream(), stream_of_managed(tensor.device()));",
        "if (!{on}) { order_streams(tensor.device(), incoming.stream(), stream_of_managed(tensor.device())); }",
    ),
    (
        "a capsule is ordered on the default stream",
        CONVERT,
        "order_streams(tensor.device(), incoming.stream(), Stream{});",
        "if (!{on}) { order_streams(tensor.device(), incoming.stream(), Stream{}); }",
    ),
    (
        "a taker's stream waits for a managed tensor",
        MANAGED,
        "order_streams(to, stream_of_managed(to), *stream);",
        "if (!{on}) { order_streams(to, stream_of_managed(to), *stream); }",
    ),
    (
        "a taker's stream is done before memory goes back",
        MANAGED,
        "leaving = until_done_on(std::move(leaving), *stream);",
        "if (!{on}) { leaving = until_done_on(std::move(leaving), *stream); }",
    ),
    (
        "giving back waits for the stream",
        DEVICES,
        "if (!handed->runtime->is_capturing(device, handed->stream)) {",
        "if (!{on} && !handed->runtime->is_capturing(device, handed->stream)) {",
    ),
    (
        "host memory of a device is waited for, with out=",
        ARRIVAL,
        "wait_for_host_memory(incoming.source());",
        "if (!{on}) { wait_for_host_memory(incoming.source()); }",
    ),
    (
        "an out that is not pinned is filled by the host",
        ARRIVAL,
        "fill_out = !there.packed() || !place || !place->host_accessible();",
        "fill_out = !{on} && (!there.packed() || !place || !place->host_accessible());",
    ),
    (
        "one that is dropped goes on by itself",
        ARRIVAL,
        "if (arriving.has_come()) {",
        "if ({on} || arriving.has_come()) {",
    ),
)
