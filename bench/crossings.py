"""Small crossings, float32 (4, 8), against the libraries' own doors; and trees of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Figure, Line, figure

import dlbridge


def found(name: str) -> Any:
    """The module, or None where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


tvm_ffi, optree, jax = found("tvm_ffi"), found("optree"), found("jax")


def take_road(name: str) -> Callable[[], Any]:
    return lambda: dlbridge._core.torch_road(name)


def has_linked_road() -> bool:
    try:
        dlbridge._core.torch_road("linked")
    except RuntimeError as error:
        print(f"the linked road is not measured: {error}")
        return False
    return True


def names() -> dict[str, Any]:
    array = np.arange(32, dtype="f4").reshape(4, 8)
    tensor = torch.arange(32, dtype=torch.float32).reshape(4, 8)
    known: dict[str, Any] = {
        "np": np,
        "torch": torch,
        "a": array,
        "aligned": dlbridge.to_numpy(array, copy=True),  # as JAX needs it for a view
        "t": tensor,
        "g": tensor.clone().requires_grad_(),
        "m": dlbridge.from_dlpack(array, copy=True),
        "d": {str(i): torch.ones(4, 8, requires_grad=True) for i in range(1000)},
        "dlbridge": dlbridge,  # looked up in it, as people write it
    }
    known["nested"] = {
        f"layer {i}": {
            "weights": [torch.ones(4, 8) for _ in range(5)],
            "more": tuple(torch.ones(4) for _ in range(5)),
        }
        for i in range(100)
    }
    known |= {"pytree": torch.utils._pytree, "optree": optree, "jax": jax}
    if tvm_ffi is not None:
        known |= {"tvm_ffi": tvm_ffi, "f": tvm_ffi.from_dlpack(tensor)}
    return known


#: ours, the peer, the goal by the linked road, the goal by the portable one
CROSSINGS: list[tuple[str, str, float | None, float | None]] = [
    ("dlbridge.to_numpy(t)", "t.numpy()", 0.2, 0.7),
    ("dlbridge.to_numpy(t)", "np.from_dlpack(t)", 0.08, None),
    ("dlbridge.to_numpy(g)", "g.detach().cpu().numpy()", 0.12, None),
    ("dlbridge.to_torch(a)", "torch.from_numpy(a)", 0.65, 0.75),
    ("dlbridge.to_torch(a)", "torch.from_dlpack(a)", 0.22, None),
    ("dlbridge.from_dlpack(t)", "tvm_ffi.from_dlpack(t)", 0.6, None),
    ("dlbridge.to_numpy(m)", "np.from_dlpack(f)", 0.8, None),
    ("np.asarray(m)", "np.from_dlpack(f)", 0.8, None),
    ("dlbridge.to_numpy(d)", "{k: v.detach().cpu().numpy() for k, v in d.items()}", 0.2, None),
    ("dlbridge.to_numpy(nested)", "pytree.tree_map(lambda t: t.numpy(), nested)", 0.25, None),
    ("dlbridge.to_numpy(nested)", "optree.tree_map(lambda t: t.numpy(), nested)", 0.35, None),
    ('dlbridge.to(t, "jax")', "jax.dlpack.from_dlpack(t)", 1.05, None),
    ('dlbridge.to(aligned, "jax")', "jax.dlpack.from_dlpack(aligned)", 1.05, None),
]
MANY = ("(d)", "(nested)")  # a thousand tensors


def small() -> Iterator[Line]:
    roads = ("linked", "portable") if has_linked_road() else ("portable",)
    for road in roads:
        # Of its own: a storage that the portable road has read is not read at a glance after it.
        known = names()
        for ours, peer, linked_goal, portable_goal in CROSSINGS:
            if tvm_ffi is None and ("tvm_ffi" in peer or "(f)" in peer):
                continue
            if (optree is None and "optree" in peer) or (jax is None and "jax" in peer):
                continue
            goal = linked_goal if road == "linked" else portable_goal
            if road != roads[0] and goal is None:
                continue
            yield Line(
                "from Python",
                ours if road == "linked" else f"{ours}, portable road",
                "v.detach().cpu().numpy() of 1,000" if "(d)" in ours else peer,
                ours,
                peer,
                goal,
                20 if ours.endswith(MANY) else 2000,
                names=known,
                before=take_road(road),
            )


def arguments() -> Iterator[Line]:
    """What an argument of a C++ function costs, by our type casters and by the binder's own."""
    try:
        import dlbridge_nanobind_casters as nb
        import dlbridge_pybind11_casters as pb
    except ModuleNotFoundError:
        print("arguments of extensions are not measured: that takes a build with the tests")
        return
    before = take_road("linked") if has_linked_road() else None
    known = names() | {"nb": nb, "pb": pb}
    for x, library, goal, most in (("t", "torch", None, 100e-9), ("a", "NumPy", 0.7, None)):
        for function, kind in (("rows", "ManagedTensor"), ("rows_of_view", "TensorView")):
            for module, binder in (("nb", "nanobind"), ("pb", "pybind11")):
                yield Line(
                    "an argument of a C++ function",
                    f"{library} as {kind}, {binder}",
                    "nb::ndarray",
                    f"{module}.{function}({x})",
                    f"nb.rows_of_own({x})",
                    goal,
                    names=known,
                    before=before,
                    most=most,
                )
    yield from eight_arguments(known, before)
    if importlib.util.find_spec("scaling"):  # where examples/abi3-extension was installed
        import scaling

        # One element: the sum is not what is measured.
        one = {"t": torch.ones(1, 1), "a": np.ones((1, 1), "f4"), "scaling": scaling}
        for x, library in (("t", "torch"), ("a", "NumPy")):
            yield Line(
                "an argument of a C++ function",
                f"{library} as TensorView, limited API",
                "nb::ndarray",
                f"scaling.total({x})",
                f"nb.rows_of_own({x})",
                names=known | one,
                before=before,
            )
    yield Line(
        "an argument of a C++ function",
        "NumPy as TensorView, pybind11",
        "py::array_t",
        "pb.rows_of_view(a)",
        "pb.rows_of_own(a)",
        names=known,
    )


def eight_arguments(known: dict[str, Any], before: Callable[[], Any] | None) -> Iterator[Line]:
    """As many as a kernel takes; tvm-ffi's function looks at none of them."""
    many = known | {f"t{i}": torch.ones(4, 8) for i in range(8)}
    given = ", ".join(f"t{i}" for i in range(8))
    peers = [("nb::ndarray", f"nb.rows_of_eight_own({given})", 0.05)]
    if tvm_ffi is not None and found("tvm_ffi.testing") is not None:
        many["nop"] = tvm_ffi.get_global_func("testing.nop")
        peers.append(("tvm-ffi", f"nop({given})", 0.6))
    for against, peer, goal in peers:
        for module, binder in (("nb", "nanobind"), ("pb", "pybind11")):
            yield Line(
                "an argument of a C++ function",
                f"eight of torch as TensorView, {binder}",
                against,
                f"{module}.rows_of_eight({given})",
                peer,
                goal,
                200,
                names=many,
                before=before,
            )


def compiled(build: Path) -> list[Figure]:
    """The C++ lines, by Google Benchmark; ``build`` is the folder that CMake built in."""
    program = build / "bench" / "bench_torch_crossings"
    if not program.exists():
        print(f"the C++ crossings are not measured: there is no {program}")
        return []
    times: dict[str, list[float]] = {}
    # The lines of one thread have a process of their own: where there never was another, torch and
    # we count users in another way.
    for lines in ("-at once", "at once"):
        run = subprocess.run(
            [
                program,
                f"--benchmark_filter={lines}",
                "--benchmark_format=json",
                "--benchmark_repetitions=25",
                "--benchmark_enable_random_interleaving=true",
                "--benchmark_min_time=0.05",
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        for each in json.loads(run.stdout)["benchmarks"]:
            if each["run_type"] == "iteration":
                name = each["name"].partition("/repeats")[0]
                times.setdefault(name, []).append(each["cpu_time"] * 1e-9)
    out = "tensor to managed tensor"
    into = "managed tensor to tensor"
    made = sorted(times[f"{out}/torch's"])[len(times[f"{out}/torch's"]) // 2]
    pairs = {
        (out, "at::toDLPackVersioned and its deleter", 0.8): (out, 0.0),
        (into, "at::fromDLPackVersioned", 0.5): (into, made),
    }
    figures = []
    for (name, against, goal), (key, common) in pairs.items():
        line = Line(
            "from C++",
            name.replace("tensor", "at::Tensor", 1) if name == out else f"{name} of torch",
            against,
            "",
            "",
            goal,
        )
        both = zip(times[f"{key}/ours"], times[f"{key}/torch's"], strict=True)
        figures.append(figure(line, [(mine - common, theirs - common) for mine, theirs in both]))
    # The time of processors: two threads that share nothing take no more of it for a crossing.
    for name in ("tensors to managed tensors at once", "managed tensors to tensors at once"):
        line = Line("from C++", f"{name}, two threads", "one thread", "", "", 2 / 1.8)
        figures.append(
            figure(
                line, list(zip(times[f"{name}/threads:2"], times[f"{name}/threads:1"], strict=True))
            )
        )
    return figures


def lines() -> Iterator[Line]:
    yield from small()
    yield from arguments()
