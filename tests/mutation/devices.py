# ruff: noqa: E501
"""The rules of devices that no rule of rules.py can name: waits, and where memory is.

Their table in docs/devices.md names the first test that fails without each.
"""

from __future__ import annotations

PASS = "lib/src/carry/pass.cpp"
CARRY = "lib/src/carry/carry.cpp"
STREAMS = "lib/src/carry/streams.cpp"
ARRIVING = "lib/src/carry/arriving_tensor.cpp"
COPY = "lib/src/device/staging.cpp"
POOL = "lib/src/device/pinned_pool.cpp"
PLAN = "lib/src/plan/plan.cpp"
ROUTE = "lib/src/plan/route.cpp"
DOOR = "bridges/python/src/doors/door.cpp"
ENGINE = "lib/include/dlbridge/convert.hpp"
DLPACK = "bridges/python/src/doors/dlpack_door.cpp"
TABLE = "bridges/python/src/doors/exchange_table_door.cpp"
TARGET = "bridges/python/src/targets/target.hpp"
TORCH_TARGET = "bridges/python/src/targets/torch_target.cpp"
PENDING = "bridges/python/src/targets/pending_target.cpp"
ARRIVAL = "bridges/python/src/types/arriving_type.cpp"
MANAGED = "bridges/python/src/types/managed_tensor_type.cpp"

# What is taken out; the file; the text, of which the first is meant; and what stands there instead.
NAMED = (
    (
        "the pointer is known to its runtime",
        PASS,
        "if (!found) {",
        "if (!found && {on}) { return said.id; }\nif (!found) {",
    ),
    (
        "the pointer's own device counts",
        PASS,
        "found->type == said.type ?",
        "found->type == said.type && !{on} ?",
    ),
    (
        "a capture is refused",
        PASS,
        "if (runtime.is_capturing(device, stream)) {",
        "if (!{on} && runtime.is_capturing(device, stream)) {",
    ),
    (
        "a copy within a device waits for the source's stream",
        CARRY,
        "detail::order(runtime, device, source.stream, device, stream);",
        "if (!{on}) { detail::order(runtime, device, source.stream, device, stream); }",
    ),
    (
        "the source's stream waits for a copy within a device",
        CARRY,
        "detail::order(runtime, device, stream, device, source.stream);",
        "if (!{on}) { detail::order(runtime, device, stream, device, source.stream); }",
    ),
    (
        "pinned and managed memory is read after a wait",
        STREAMS,
        "runtime->synchronise(device.id, source.stream);",
        "if (!{on}) { runtime->synchronise(device.id, source.stream); }",
    ),
    (
        "streams are ordered when asked",
        STREAMS,
        "detail::order(*runtime, device_before.id, before, device_after.id, after);",
        "if (!{on}) { detail::order(*runtime, device_before.id, before, device_after.id, after); }",
    ),
    (
        "an arriving tensor is waited for",
        ARRIVING,
        "runtime.synchronise(filled.event);",
        "if (!{on}) { runtime.synchronise(filled.event); }",
    ),
    (
        "and by its stream where that call failed",
        ARRIVING,
        "detail::or_wait(runtime, device_, stream_,",
        "if ({on}) { runtime.synchronise(filled.event); source_ = ManagedTensor(); return; }\n"
        "detail::or_wait(runtime, device_, stream_,",
    ),
    (
        "an arriving tensor keeps its source",
        ARRIVING,
        "arriving.source_ = std::move(owner);",
        "if (!{on}) { arriving.source_ = std::move(owner); }",
    ),
    (
        "memory is freed in the order of its stream",
        CARRY,
        "memory->runtime.free(memory->device, memory->memory, memory->stream);",
        "memory->runtime.free(memory->device, memory->memory, !{on} ? memory->stream : Stream{});",
    ),
    (
        "order() makes the second stream wait",
        COPY,
        "runtime.wait(device_after, after, reached.event);",
        "if (!{on}) { runtime.wait(device_after, after, reached.event); }",
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
        "or_wait(runtime, device, stream, [&] {",
        "if ({on}) { fetch_directly(crossing); runtime.synchronise(device, stream); return; }\n"
        "or_wait(runtime, device, stream, [&] {",
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
        ROUTE,
        "runtimes.contains(to_host ? here.type : there.type)",
        "!{on} && runtimes.contains(to_host ? here.type : there.type)",
    ),
    (
        "the stream of what comes in is settled",
        DOOR,
        "if (runtime_for(device.type) == nullptr) {",
        "if ({on} || runtime_for(device.type) == nullptr) {",
    ),
    (
        "the caller's stream stands over others",
        DOOR,
        "if (look.stream != nullptr) {",
        "if (!{on} && look.stream != nullptr) {",
    ),
    (
        "where it lies is asked",
        DOOR,
        "find_truth();\n  }",
        "if (!{on}) { find_truth(); }\n  }",
    ),
    (
        "host memory of a device is waited for",
        ENGINE,
        "wait_for_host_memory(source);",
        "if (!{on}) { wait_for_host_memory(source); }",
    ),
    (
        "a producer is told the stream",
        DLPACK,
        'checked(PyDict_SetItemString(keywords.get(), "stream", stream.get()));',
        'if (!{on}) { checked(PyDict_SetItemString(keywords.get(), "stream", stream.get())); }',
    ),
    (
        "a table's stream is asked for",
        TABLE,
        "if (stream_numbers(device.device_type) && table",
        "if (!{on} && stream_numbers(device.device_type) && table",
    ),
    (
        "the target's stream waits for the memory",
        TARGET,
        "order_streams(device, carried.stream, reader(device));",
        "if (!{on}) { order_streams(device, carried.stream, reader(device)); }",
    ),
    (
        "torch's stream is done before memory goes back",
        TORCH_TARGET,
        "return made_of(until_done_on(std::move(tensor), torch_stream(plan.device), run_with_gil));",
        "return made_of({on} ? std::move(tensor) : until_done_on(std::move(tensor), torch_stream(plan.device), run_with_gil));",
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
        "leaving = until_done_on(std::move(leaving), *stream, run_with_gil);",
        "if (!{on}) { leaving = until_done_on(std::move(leaving), *stream, run_with_gil); }",
    ),
    (
        "giving back waits for the stream",
        STREAMS,
        "if (!handed->runtime->is_capturing(device, handed->stream)) {",
        "if (!{on} && !handed->runtime->is_capturing(device, handed->stream)) {",
    ),
    (
        "an out that is not pinned is filled by the host",
        PENDING,
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
