"""README.md and the manual say what is so: every Python example runs as printed, every `python -c`
line too, and the tables of the policy are those of the library."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from arrow_sources import Chunked, Whole
from lazy_sources import Lazy, Silent
from numpy_sources import unaligned

import dlbridge

pytestmark = pytest.mark.keeps_sources  # JAX, imported here, keeps constants

ROOT = Path(__file__).resolve().parents[3]
MANUAL = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def blocks(path: str, language: str) -> list[str]:
    """The fenced blocks of that language, as printed."""
    text = (ROOT / path).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# A child for each: the examples set up what they need themselves, and nothing is left over.
RUN_EXAMPLES = """
import doctest, sys
text = sys.stdin.read()
if ">>>" not in text:
    exec(compile(text, "example", "exec"), {"__name__": "__main__"})
    sys.exit()
example = doctest.DocTestParser().get_doctest(text, {}, sys.argv[1], sys.argv[1], 0)
runner = doctest.DocTestRunner()
runner.run(example)
sys.exit(runner.failures != 0 or runner.tries == 0)
"""


def run(arguments: list[str], text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=text,
        timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def one_liners(path: str) -> list[tuple[str, str]]:
    """Each `python -c` line, with what the comment lines below it say that it prints."""
    found: list[tuple[str, str]] = []
    for block in blocks(path, "sh"):
        lines = block.splitlines()
        for index, line in enumerate(lines):
            if not line.startswith("python -c"):
                continue
            printed = []
            for below in lines[index + 1 :]:
                if not below.startswith("# "):
                    break
                printed.append(below.removeprefix("# "))
            found.append((line, "\n".join(printed)))
    return found


README_EXAMPLES = blocks("README.md", "python")
README_LINES = one_liners("README.md")


def test_the_readme_has_examples() -> None:
    assert README_EXAMPLES
    assert any("dlbridge.to_numpy" in example for example in README_EXAMPLES)
    assert len(README_LINES) >= 3
    assert all(printed for _, printed in README_LINES)


@pytest.mark.parametrize("index", range(len(README_EXAMPLES)))
def test_an_example_of_the_readme_runs_as_printed(index: int) -> None:
    run(["-c", RUN_EXAMPLES, f"README example {index}"], README_EXAMPLES[index])


@pytest.mark.parametrize("line", [line for line, _ in README_LINES])
def test_a_one_liner_of_the_readme_prints_what_it_says(line: str) -> None:
    command, *arguments = shlex.split(line)
    assert command == "python"
    assert run(arguments).strip() == dict(README_LINES)[line]


@pytest.mark.parametrize("name", MANUAL)
def test_the_examples_of_the_manual_run_as_printed(name: str) -> None:
    examples = "\n".join(blocks(f"docs/{name}", "python"))
    if '"jax"' in examples:
        pytest.importorskip("jax")
    if examples:
        run(["-c", RUN_EXAMPLES, name], examples)


def test_the_readme_shows_the_program_that_the_manual_builds() -> None:
    assert blocks("README.md", "cpp") == [(ROOT / "docs/code/graph.cpp").read_text()]


def test_the_reference_of_cpp_has_every_header() -> None:
    text = (ROOT / "docs/reference-cpp.md").read_text()
    named = re.findall(r"^```{doxygenfile} (\S+)$", text, re.MULTILINE)
    # C's has its tables, and these are parts of torch.hpp.
    inside = r"dlbridge\.h|torch_(devices|library|storage|types|vocabulary)\.hpp"
    folders = [ROOT / "lib/include", *ROOT.glob("bridges/*/include")]
    headers = [path.name for folder in folders for path in (folder / "dlbridge").iterdir()]
    assert sorted(named) == sorted(name for name in headers if not re.fullmatch(inside, name))


# --- the tables of the policy -------------------------------------------------------------------


def table_below(path: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below that line."""
    lines = iter((ROOT / path).read_text().splitlines())
    for line in lines:
        if line == heading:
            break
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]  # without the titles and the line below them


def test_the_fields_of_the_manual_are_those_of_the_policy() -> None:
    written = {
        row[0].strip("`"): tuple(re.findall(r"`(\w+)`", row[1]))
        for row in table_below("docs/policy.md", "## Fields")
    }
    copy_rules = written.pop("copy")
    assert written == dlbridge._core.policy_fields()
    for field, values in written.items():
        assert getattr(dlbridge.host, field) == values[0]
        for value in values:
            assert getattr(dlbridge.Policy(**{field: value}), field) == value
    assert copy_rules == ("None", "False", "True")
    for rule in (None, False, True):
        assert dlbridge.Policy(copy=rule).copy is rule


def of_dtype(dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(2, dtype=dtype)


def freed() -> torch.Tensor:
    tensor = torch.ones(4)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake() -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(2)


def quietly(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    with warnings.catch_warnings():  # torch calls these prototypes or deprecated
        warnings.simplefilter("ignore")
        return make()


def quantised() -> torch.Tensor:
    return quietly(lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))


def nested() -> torch.Tensor:
    return quietly(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))


class Dispatching(torch.Tensor):
    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError("nothing may be dispatched")


def dispatching() -> torch.Tensor:
    return torch.Tensor._make_subclass(Dispatching, torch.ones(3))


def read_only() -> np.ndarray:
    array = np.ones(3)
    array.flags.writeable = False
    return array


def leaf() -> torch.Tensor:
    return torch.ones(16, requires_grad=True)


def conj() -> torch.Tensor:
    return torch.ones(3, dtype=torch.complex64).conj()


class Quantity(np.ndarray):
    unit = "m"


def structured() -> np.ndarray:
    return np.zeros(3, dtype=[("a", "f4"), ("b", "i2")])


SOURCES: dict[str, list[tuple[Callable[[], Any], str]]] = {
    "plain": [(lambda: torch.ones(3), "numpy"), (lambda: np.ones(3), "torch")],
    "in a graph (requires_grad), to NumPy": [(leaf, "numpy")],
    "in a graph (requires_grad), to JAX": [(leaf, "jax")],
    "conj bit": [(conj, "numpy")],
    "neg bit": [(lambda: conj().imag, "numpy")],
    "zero tensor": [(lambda: torch._efficientzerotensor((3,)), "numpy")],
    "sparse": [(lambda: torch.eye(2).to_sparse(), "numpy")],
    "sparse, to a library that has the same layout (SciPy, torch)": [
        (lambda: torch.eye(2).to_sparse(), "scipy"),
        (lambda: scipy.sparse.csr_array(np.eye(2)), "torch"),
    ],
    "mkldnn": [(lambda: torch.eye(2).to_mkldnn(), "numpy")],
    "quantised": [(quantised, "numpy")],
    "nested": [(nested, "numpy")],
    "meta, fake": [(lambda: torch.ones(2, device="meta"), "numpy"), (fake, "numpy")],
    "freed storage, or one too small for the shape": [(freed, "numpy")],
    "not initialised (lazy modules)": [(torch.nn.UninitializedBuffer, "numpy")],
    "a subclass with `__torch_dispatch__`": [(dispatching, "numpy")],
    "masked array": [(lambda: np.ma.array([1, 2], mask=[0, 1]), "torch")],
    "array with a unit": [(lambda: np.ones(2).view(Quantity), "torch")],
    "int1 to int7, uint1 to uint7 of torch": [
        (lambda: of_dtype(torch.int4), "numpy"),
        (lambda: of_dtype(torch.uint1), "numpy"),
    ],
    "object, string, datetime, structured, longdouble": [
        (lambda: np.array([None]), "torch"),
        (lambda: np.array(["a"]), "torch"),
        (lambda: np.array(["2020"], dtype="M8[s]"), "torch"),
        (structured, "torch"),
        (lambda: np.ones(3, np.longdouble), "torch"),
    ],
    "bf16 or fp8, to NumPy": [
        (lambda: torch.ones(3, dtype=torch.bfloat16), "numpy"),
        (lambda: torch.ones(3, dtype=torch.float8_e5m2), "numpy"),
    ],
    "read-only, to NumPy": [(lambda: dlbridge.from_dlpack(read_only()), "numpy")],
    "read-only, to torch": [(read_only, "torch")],
    "overlapping itself, to NumPy": [(lambda: torch.ones(1).expand(3), "numpy")],
    "overlapping itself and writable, to torch": [
        (lambda: np.lib.stride_tricks.as_strided(np.ones(3), (3, 2), (8, 8)), "torch")
    ],
    "negative strides, to torch": [(lambda: np.ones(3)[::-1], "torch")],
    "elements not aligned to their size, to NumPy": [
        (lambda: torch.frombuffer(unaligned().view("u1"), dtype=torch.float32), "numpy"),
        (lambda: dlbridge.from_dlpack(unaligned()), "numpy"),
    ],
    "elements not aligned to their size, to any target that loads by type": [
        (unaligned, "torch"),
        (unaligned, "ctypes"),
        (lambda: dlbridge.from_dlpack(unaligned()), "torch"),
    ],
    "writable, to a target that takes memory as constant (JAX, TensorFlow)": [
        (lambda: dlbridge.to_numpy(np.ones(3, "f4"), copy=True), "jax")
    ],
    "strides that are no multiple of the item size": [(lambda: structured()["a"], "torch")],
    "no array yet (h5py, zarr, dask: `__array__`)": [
        (Lazy, "numpy"),
        (Silent, "torch"),
    ],
    "columns in chunks or side by side, booleans that are bits (Arrow)": [
        (lambda: Chunked(b"g", np.ones(3), np.ones(2)), "numpy"),
        (lambda: Whole(b"b", np.ones(1, "u1")), "torch"),
    ],
    "columns with nulls, or of several types": [
        (lambda: Whole(b"g", np.ones(3), nulls=1, marks=np.zeros(1, "u1")), "numpy"),
        (lambda: Whole(b"u", np.ones(3)), "numpy"),
    ],
    "in the other byte order": [(lambda: np.ones(3, ">f4"), "torch")],
}
# What the other rows are about exists only inside a transform, where the tests of the policy look,
# or on a device.
ELSEWHERE = {
    "forward-mode dual (the tangent would be lost)",
    "inside a function transform (vmap, grad)",
    "on a device, target on the host",
    "pinned or managed memory",
}
PRESETS = ("strict", "host", "zero_copy", "snapshot")
ROWS = {row[0]: tuple(row[1:]) for row in table_below("docs/policy.md", "## The table")}


def outcome(source: Any, target: str, policy: str) -> str:
    plan = dlbridge.explain(source, target, policy=policy)
    if plan.refused:
        return "refuse"
    if not plan.view:
        return "copy"
    note = ", with a note" if plan.notes else ""
    return ("view" if plan.writable else "read-only view") + note


def test_every_row_of_the_table_is_looked_at() -> None:
    assert set(ROWS) == set(SOURCES) | ELSEWHERE


@pytest.mark.parametrize("row", SOURCES)
def test_the_table_of_the_manual_is_what_happens(road: str, row: str) -> None:
    for make, target in SOURCES[row]:
        if target == "jax":
            pytest.importorskip("jax")
        source = make()
        assert tuple(outcome(source, target, policy) for policy in PRESETS) == ROWS[row]


def test_the_reference_has_every_public_name_and_each_says_what_it_is() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    presets = {"strict", "host", "zero_copy", "snapshot", "__version__"}
    named = re.findall(r"^\.\. auto\w+:: (\w+)", text, re.MULTILINE)
    assert sorted(named) == sorted(set(dlbridge.__all__) - presets)
    for name in named:
        said = getattr(dlbridge, name).__doc__
        assert said and len(said.split()) > 5, name


def test_the_page_of_messages_is_what_is_raised() -> None:
    page = (ROOT / "docs" / "messages.md").read_text()
    versions = f"torch {torch.__version__.partition('+')[0]} and NumPy {np.__version__}."
    if versions not in page:
        pytest.skip("made with other versions")
    made = subprocess.run(
        [sys.executable, "docs/measure/messages.py"],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout == page, "docs/measure/messages.py makes it anew"
