# ruff: noqa: E501
"""Takes out one wait, or one check of residency, after another, and asks the device tests.

    python tests/guarded/mutate.py build [numbers]

The tree is changed in place (it must be clean, and is put back at the end): every removal is built
at once, behind a number in the environment, and then the tests run for each until one fails. Not
for CI. Afterwards the build folder has to be built again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWITCH = """#include <cstdlib>
namespace {
[[maybe_unused]] bool without(int number) {
  const char* chosen = std::getenv("DLBRIDGE_WITHOUT");
  return chosen != nullptr && std::atoi(chosen) == number;
}
}  // namespace
"""
TARGETS = (
    "dlbridge_guarded_tests",
    "dlbridge_python",
    "dlbridge_guarded",
    "dlbridge_guarded_torch",
)

TRANSFER = "lib/src/transfer.cpp"
COPY = "lib/src/device_copy.cpp"
POOL = "lib/src/pinned_pool.cpp"
PLAN = "lib/src/plan.cpp"
INCOMING = "bridges/python/src/incoming.cpp"
CONVERT = "bridges/python/src/convert.cpp"
GENERIC = "bridges/python/src/generic.cpp"
DEVICES = "bridges/python/src/devices.cpp"
ARRIVAL = "bridges/python/src/arrival.cpp"
MANAGED = "bridges/python/src/managed_tensor_type.cpp"

# What is taken out; the file; the text, of which the first is meant; and what stands there instead,
# with @ for "not without this one".
REMOVALS = (
    (
        "the pointer is known to its runtime",
        TRANSFER,
        "if (!found) {",
        "if (!found && without(#)) { return said.id; }\nif (!found) {",
    ),
    (
        "the pointer's own device counts",
        TRANSFER,
        "found->type == said.type ?",
        "found->type == said.type && @ ?",
    ),
    (
        "a capture is refused",
        TRANSFER,
        "if (runtime.is_capturing(device, stream)) {",
        "if (@ && runtime.is_capturing(device, stream)) {",
    ),
    (
        "a copy within a device waits for the source's stream",
        TRANSFER,
        "detail::order(runtime, device, source.stream, device, stream);",
        "if (@) { detail::order(runtime, device, source.stream, device, stream); }",
    ),
    (
        "the source's stream waits for a copy within a device",
        TRANSFER,
        "detail::order(runtime, device, stream, device, source.stream);",
        "if (@) { detail::order(runtime, device, stream, device, source.stream); }",
    ),
    (
        "pinned and managed memory is read after a wait",
        TRANSFER,
        "runtime->synchronise(device.id, source.stream);",
        "if (@) { runtime->synchronise(device.id, source.stream); }",
    ),
    (
        "streams are ordered when asked",
        TRANSFER,
        "detail::order(*runtime, device_before.id, before, device_after.id, after);",
        "if (@) { detail::order(*runtime, device_before.id, before, device_after.id, after); }",
    ),
    (
        "an arriving tensor is waited for",
        TRANSFER,
        "runtime.synchronise(filled);",
        "if (@) { runtime.synchronise(filled); }",
    ),
    (
        "and by its stream where that call failed",
        TRANSFER,
        "runtime.synchronise(device_, stream_);",
        "if (@) { runtime.synchronise(device_, stream_); }",
    ),
    (
        "an arriving tensor keeps its source",
        TRANSFER,
        "arriving.source_ = std::move(owner);",
        "if (@) { arriving.source_ = std::move(owner); }",
    ),
    (
        "memory is freed in the order of its stream",
        TRANSFER,
        "memory->runtime.free(memory->device, memory->memory, memory->stream);",
        "memory->runtime.free(memory->device, memory->memory, @ ? memory->stream : Stream{});",
    ),
    (
        "order() makes the second stream wait",
        COPY,
        "runtime.wait(device_after, after, reached);",
        "if (@) { runtime.wait(device_after, after, reached); }",
    ),
    (
        "a buffer with a failed copy under way is waited for",
        COPY,
        "crossing_.runtime.synchronise(crossing_.device, crossing_.stream);\n      } catch",
        "if (@) { crossing_.runtime.synchronise(crossing_.device, crossing_.stream); }\n      } catch",
    ),
    (
        "a buffer's event is waited for",
        COPY,
        "crossing_.runtime.synchronise(block_.busy);",
        "if (@) { crossing_.runtime.synchronise(block_.busy); }",
    ),
    (
        "a single buffer's stream is waited for",
        COPY,
        "void wait_for_stream() {\n",
        "void wait_for_stream() { if (!@) { begun_ = false; return; }\n",
    ),
    (
        "a failed copy into pinned memory is waited for",
        COPY,
        "crossing.runtime.synchronise(crossing.device, crossing.stream);",
        "if (@) { crossing.runtime.synchronise(crossing.device, crossing.stream); }",
    ),
    (
        "a copy into pinned memory is waited for",
        COPY,
        "fetch_directly(crossing);\n      runtime.synchronise(device, stream);",
        "fetch_directly(crossing);\n      if (@) { runtime.synchronise(device, stream); }",
    ),
    (
        "a copy from pinned memory is waited for",
        COPY,
        "may write to the source as soon as this returns.\n      runtime.synchronise(device, stream);",
        "may write to the source as soon as this returns.\n      if (@) { runtime.synchronise(device, stream); }",
    ),
    (
        "only pinned memory is written by the device",
        COPY,
        "return place && (place->type",
        "return !@ || (place && (place->type",
    ),
    ("a buffer is emptied after its wait", COPY, "behind->wait();", "if (@) { behind->wait(); }"),
    ("so is the last one", COPY, "ahead->wait();", "if (@) { ahead->wait(); }"),
    (
        "a buffer is filled again after its wait",
        COPY,
        "slices.cut(index, slice_);\n    wait();",
        "slices.cut(index, slice_);\n    if (@) { wait(); }",
    ),
    (
        "the pool gives out no busy buffer",
        POOL,
        "&& !runtime_.has_come(block.busy)",
        "&& @ && !runtime_.has_come(block.busy)",
    ),
    (
        "the pool frees no busy buffer",
        POOL,
        "runtime_.synchronise(block.busy);\n        runtime_.release",
        "if (@) { runtime_.synchronise(block.busy); }\n        runtime_.release",
    ),
    (
        "nothing on a device passes to the host as it is",
        PLAN,
        "(!target.wants_host || here.host_accessible())",
        "(!target.wants_host || !@ || here.host_accessible())",
    ),
    (
        "what wants the host gets it",
        PLAN,
        "target_.wants_host && !here.host_accessible()",
        "@ && target_.wants_host && !here.host_accessible()",
    ),
    (
        "host memory is named by what the host reaches",
        PLAN,
        "there.type == kDLCPU && here.host_accessible()",
        "there.type == kDLCPU && (!@ || here.host_accessible())",
    ),
    (
        "the runtime stands before the producer",
        PLAN,
        "return Carrier::kRuntime;",
        "if (@) { return Carrier::kRuntime; }",
    ),
    (
        "the stream of what comes in is settled",
        INCOMING,
        "settle_device(how);\n",
        "if (@) { settle_device(how); }\n",
    ),
    (
        "the caller's stream stands over others",
        INCOMING,
        "if (how.stream) {",
        "if (@ && how.stream) {",
    ),
    (
        "where it lies is asked",
        INCOMING,
        "settle_location();\n  }",
        "if (@) { settle_location(); }\n  }",
    ),
    (
        "host memory of a device is waited for",
        INCOMING,
        "wait_for_host_memory(source());",
        "if (@) { wait_for_host_memory(source()); }",
    ),
    (
        "a producer is told the stream",
        GENERIC,
        'checked(PyDict_SetItemString(keywords.get(), "stream", stream.get()));',
        'if (@) { checked(PyDict_SetItemString(keywords.get(), "stream", stream.get())); }',
    ),
    (
        "a table's stream is asked for",
        GENERIC,
        "if (has_streams(device) && table",
        "if (@ && has_streams(device) && table",
    ),
    (
        "torch's stream waits for a view's memory",
        CONVERT,
        "order_streams(decided.device, incoming.stream(), reader);",
        "if (@) { order_streams(decided.device, incoming.stream(), reader); }",
    ),
    (
        "torch's stream is done before memory goes back",
        CONVERT,
        "tensor = until_done_on(std::move(tensor), reader);",
        "if (@) { tensor = until_done_on(std::move(tensor), reader); }",
    ),
    (
        "a managed tensor is ordered on our stream",
        CONVERT,
        "order_streams(tensor.device(), incoming.stream(), stream_of_managed(tensor.device()));",
        "if (@) { order_streams(tensor.device(), incoming.stream(), stream_of_managed(tensor.device())); }",
    ),
    (
        "a capsule is ordered on the default stream",
        CONVERT,
        "order_streams(tensor.device(), incoming.stream(), Stream{});",
        "if (@) { order_streams(tensor.device(), incoming.stream(), Stream{}); }",
    ),
    (
        "a taker's stream waits for a managed tensor",
        MANAGED,
        "order_streams(to, stream_of_managed(to), *stream);",
        "if (@) { order_streams(to, stream_of_managed(to), *stream); }",
    ),
    (
        "a taker's stream is done before memory goes back",
        MANAGED,
        "leaving = until_done_on(std::move(leaving), *stream);",
        "if (@) { leaving = until_done_on(std::move(leaving), *stream); }",
    ),
    (
        "giving back waits for the stream",
        DEVICES,
        "if (!handed->runtime->is_capturing(device, handed->stream)) {",
        "if (@ && !handed->runtime->is_capturing(device, handed->stream)) {",
    ),
    (
        "host memory of a device is waited for, with out=",
        ARRIVAL,
        "wait_for_host_memory(incoming.source());",
        "if (@) { wait_for_host_memory(incoming.source()); }",
    ),
    (
        "an out that is not pinned is filled by the host",
        ARRIVAL,
        "fill_out = !there.packed() || !place || !place->host_accessible();",
        "fill_out = @ && (!there.packed() || !place || !place->host_accessible());",
    ),
    (
        "one that is dropped goes on by itself",
        ARRIVAL,
        "if (arriving.has_come()) {",
        "if (!@ || arriving.has_come()) {",
    ),
)


def apply() -> None:
    for number, (what, name, text, instead) in enumerate(REMOVALS, start=1):
        path = ROOT / name
        code = path.read_text()
        assert text in code, f"{number} ({what}): {name} has no {text!r}"
        changed = instead.replace("@", f"(!without({number}))").replace("#", str(number))
        if "|| (place && (place->type" in changed:  # one bracket more to close
            code = re.sub(
                re.escape(text) + r"(.*);", lambda m, c=changed: c + m[1] + ");", code, count=1
            )
        else:
            code = code.replace(text, changed, 1)
        path.write_text(code)
    for name in {name for _, name, _, _ in REMOVALS}:
        path = ROOT / name
        path.write_text(SWITCH + path.read_text())


def first_failure(build: Path, number: int) -> str:
    environment = os.environ | {
        "DLBRIDGE_WITHOUT": str(number),
        "PYTHONPATH": f"{build}/python",
        "GTEST_FAIL_FAST": "1",
    }
    runs = (
        (
            [str(build / "dlbridge_guarded_tests"), "--gtest_filter=-guarded_device*"],
            r"FAILED  \] (\S+)",
        ),
        (
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:xdist", "--tb=no"]
            + [f"tests/python/test_device{part}.py" for part in ("s", "_targets", "s_torch")],
            r"(?:FAILED|ERROR) \S+::(\S+)",
        ),
    )
    for command, pattern in runs:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
            )
        except subprocess.TimeoutExpired:
            return "(a test hung)"
        if done.returncode != 0:
            found = re.search(pattern, done.stdout)
            running = re.findall(r"RUN      \] (\S+)", done.stdout)
            return found[1] if found else f"(a crash in {running[-1] if running else 'pytest'})"
    return "none"


def main() -> None:
    build = Path(sys.argv[1]).resolve()
    chosen = [int(number) for number in sys.argv[2:]] or range(1, len(REMOVALS) + 1)
    files = sorted({name for _, name, _, _ in REMOVALS})
    clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *files], cwd=ROOT, check=False)
    if clean.returncode != 0:
        sys.exit("commit first: the files are changed in place")
    try:
        apply()
        subprocess.run(["cmake", "--build", build, "--target", *TARGETS, "-j", "2"], check=True)
        for number in (0, *chosen):
            what = REMOVALS[number - 1][0] if number else "(nothing)"
            print(f"| {number} | {what} | `{first_failure(build, number)}` |", flush=True)
    finally:
        subprocess.run(["git", "checkout", "-q", "HEAD", "--", *files], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
