"""The policy table, cell by cell: torch tensors on their way to NumPy, on both roads.

view: shared memory, writable. view ro: shared memory, read-only. copy: private memory, writable.
"""

from __future__ import annotations

from typing import Any

import dlbridge_probe as probe
import numpy as np
import pytest
from dlb_support import PRESETS, READ_ONLY, address, is_private, torch_bytes
from torch_sources import ML_DTYPES, NEWER, SOURCES

import dlbridge

TABLE = """
source                           | strict  | host    | zero_copy | snapshot
plain                            | view    | view    | view      | copy
transposed                       | view    | view    | view      | copy
offset slice                     | view    | view    | view      | copy
stepped                          | view    | view    | view      | copy
0-d                              | view    | view    | view      | copy
bool                             | view    | view    | view      | copy
int64                            | view    | view    | view      | copy
uint16                           | view    | view    | view      | copy
float16                          | view    | view    | view      | copy
complex128                       | view    | view    | view      | copy
buffer of a module               | view    | view    | view      | copy
in shared memory                 | view    | view    | view      | copy
most dims                        | view    | view    | view      | copy
zero stride of size 1            | view    | view    | view      | copy
plain subclass                   | view    | view    | view      | copy
inference tensor                 | view    | view    | view      | copy
graph: leaf                      | refuse  | view ro | view ro   | copy
graph: parameter                 | refuse  | view ro | view ro   | copy
graph: non-leaf                  | refuse  | view ro | view ro   | copy
graph: view of a leaf            | refuse  | view ro | view ro   | copy
graph: leaf under no_grad        | refuse  | view ro | view ro   | copy
graph: leaf under inference_mode | refuse  | view ro | view ro   | copy
forward dual                     | refuse  | view ro | view ro   | copy
conj                             | refuse  | copy    | refuse    | copy
neg                              | refuse  | copy    | refuse    | copy
conj and neg                     | refuse  | copy    | refuse    | copy
conj in a graph                  | refuse  | copy    | refuse    | copy
zero tensor                      | refuse  | copy    | refuse    | copy
sparse coo                       | refuse  | refuse  | refuse    | refuse
sparse csr                       | refuse  | refuse  | refuse    | refuse
sparse csc                       | refuse  | refuse  | refuse    | refuse
sparse bsr                       | refuse  | refuse  | refuse    | refuse
mkldnn                           | refuse  | refuse  | refuse    | refuse
quantised                        | refuse  | refuse  | refuse    | refuse
quantised per channel            | refuse  | refuse  | refuse    | refuse
nested strided                   | refuse  | refuse  | refuse    | refuse
nested jagged                    | refuse  | refuse  | refuse    | refuse
meta                             | refuse  | refuse  | refuse    | refuse
fake                             | refuse  | refuse  | refuse    | refuse
fake inside its mode             | refuse  | refuse  | refuse    | refuse
uninitialised                    | refuse  | refuse  | refuse    | refuse
functionalised                   | refuse  | refuse  | refuse    | refuse
vmap wrapper                     | refuse  | refuse  | refuse    | refuse
vmap wrapper, escaped            | refuse  | refuse  | refuse    | refuse
grad wrapper                     | refuse  | refuse  | refuse    | refuse
grad wrapper, escaped            | refuse  | refuse  | refuse    | refuse
wrapper subclass                 | refuse  | refuse  | refuse    | refuse
freed storage                    | refuse  | refuse  | refuse    | refuse
storage cut short                | refuse  | refuse  | refuse    | refuse
subclass with __torch_dispatch__ | refuse  | refuse  | refuse    | refuse
bfloat16                         | refuse  | view    | view      | copy
float8_e4m3fn                    | refuse  | view    | view      | copy
float8_e4m3fnuz                  | refuse  | view    | view      | copy
float8_e5m2                      | refuse  | view    | view      | copy
float8_e5m2fnuz                  | refuse  | view    | view      | copy
float8_e8m0fnu                   | refuse  | view    | view      | copy
bfloat16 in a graph              | refuse  | view ro | view ro   | copy
complex32                        | refuse  | refuse  | refuse    | refuse
float4 pairs                     | refuse  | refuse  | refuse    | refuse
int1                             | refuse  | refuse  | refuse    | refuse
int4                             | refuse  | refuse  | refuse    | refuse
int7                             | refuse  | refuse  | refuse    | refuse
uint1                            | refuse  | refuse  | refuse    | refuse
uint3                            | refuse  | refuse  | refuse    | refuse
uint7                            | refuse  | refuse  | refuse    | refuse
bits8                            | refuse  | refuse  | refuse    | refuse
65 dims                          | refuse  | refuse  | refuse    | refuse
expanded                         | view ro | view ro | view ro   | copy
overlapping windows              | view ro | view ro | view ro   | copy
empty (0,)                       | view    | view    | view      | copy
empty (0, 3)                     | view    | view    | view      | copy
empty (3, 0)                     | view    | view    | view      | copy
empty (2, 0, 5)                  | view    | view    | view      | copy
"""


def cells() -> list[Any]:
    head, *rows = TABLE.strip().splitlines()
    presets = [part.strip() for part in head.split("|")[1:]]
    assert presets == list(PRESETS)
    found = []
    for row in rows:
        name, *answers = [part.strip() for part in row.split("|")]
        if name in NEWER:
            continue
        for preset, answer in zip(presets, answers, strict=True):
            found.append(pytest.param(name, preset, answer, id=f"{name}-{preset}"))
    return found


def test_every_kind_of_tensor_has_a_row() -> None:
    rows = {row.split("|")[0].strip() for row in TABLE.strip().splitlines()[1:]}
    assert rows == set(SOURCES) | NEWER


def memory_of(tensor: Any) -> tuple[int, int]:
    """Where the tensor's storage lies, in torch's own words."""
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def check_answer(result: np.ndarray, tensor: Any, expected: np.ndarray, answer: str) -> None:
    assert type(result) is np.ndarray
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()  # bit by bit, so NaN patterns count too
    if answer == "copy":
        assert is_private(result)
    else:
        assert result.flags.writeable == (answer == "view")
    if expected.size and answer != "copy":
        assert address(result) == tensor.data_ptr()
    if expected.size and answer == "copy" and tensor.data_ptr():  # a zero tensor has no memory
        low, high = memory_of(tensor)
        assert not low <= address(result) < high


@pytest.mark.parametrize("name, preset, answer", cells())
def test_the_table_says_what_becomes_of_a_tensor(
    road: str, name: str, preset: str, answer: str
) -> None:
    with SOURCES[name]() as (tensor, expected):
        plan = dlbridge.explain(tensor, "numpy", policy=preset)
        if answer == "refuse":
            with pytest.raises(dlbridge.ConversionRefused) as caught:
                dlbridge.to_numpy(tensor, policy=preset)
            assert plan.refused
            assert plan.reasons and plan.reasons == caught.value.reasons
            assert caught.value.plan.refused
            return
        result = dlbridge.to_numpy(tensor, policy=preset)
        assert expected is not None
        check_answer(result, tensor, expected, answer)
        # explain told the same beforehand.
        assert not plan.refused
        assert plan.view == (answer != "copy")
        assert plan.writable == result.flags.writeable
        assert plan.bytes_copied == (result.nbytes if answer == "copy" else 0)


VIEWS = [p for p in cells() if p.values[2].startswith("view") and "empty" not in p.values[0]]


@pytest.mark.parametrize("name, preset, answer", [p for p in VIEWS if p.values[2] == "view"])
def test_a_write_through_a_writable_view_reaches_the_tensor(
    road: str, name: str, preset: str, answer: str
) -> None:
    with SOURCES[name]() as (tensor, _):
        result = dlbridge.to_numpy(tensor, policy=preset)
        last = tuple(n - 1 for n in result.shape)
        before = result[last].tobytes()
        result[last] = not result[last] if result.dtype == bool else result.dtype.type(2)
        assert result[last].tobytes() != before
        assert torch_bytes(tensor) == result.tobytes()


@pytest.mark.parametrize("name, preset, answer", [p for p in VIEWS if p.values[2] == "view ro"])
def test_a_read_only_view_cannot_be_made_writable(
    road: str, name: str, preset: str, answer: str
) -> None:
    with SOURCES[name]() as (tensor, _):
        result = dlbridge.to_numpy(tensor, policy=preset)
        with pytest.raises(ValueError, match="read-only"):
            result[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            result.flags.writeable = True


@pytest.mark.parametrize("name", [n for n in SOURCES if n.startswith(("sparse", "mkldnn"))])
def test_densify_turns_a_layout_without_strides_into_a_copy(road: str, name: str) -> None:
    densify = dlbridge.Policy(layout="densify")
    with SOURCES[name]() as (tensor, expected):
        plan = dlbridge.explain(tensor, "numpy", policy=densify)
        result = dlbridge.to_numpy(tensor, policy=densify)
        assert expected is not None
        assert np.array_equal(result, expected) and result.dtype == expected.dtype
        assert is_private(result)
        assert not plan.refused and not plan.view and plan.writable
        assert any("densify" in step for step in plan.steps)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(tensor, policy=densify, copy=False)


def test_a_sparse_tensor_in_a_graph_is_densified_and_detached(road: str) -> None:
    with SOURCES["sparse coo"]() as (tensor, expected):
        tensor.requires_grad_()
        result = dlbridge.to_numpy(tensor, policy=dlbridge.Policy(layout="densify"))
        assert np.array_equal(result, expected)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_numpy(tensor, policy=dlbridge.strict.replace(layout="densify", copy=None))


@pytest.mark.parametrize(
    "name, preset, answer",
    [p for p in cells() if p.values[1] == "host" and p.values[2] != "refuse"],
)
def test_a_managed_tensor_obeys_the_same_table(
    road: str, name: str, preset: str, answer: str
) -> None:
    with SOURCES[name]() as (tensor, expected):
        managed = dlbridge.from_dlpack(tensor)
        assert expected is not None
        assert managed.shape == expected.shape
        assert managed.readonly == (answer == "view ro")
        if expected.size:
            # DLPack has bfloat16 and float8 itself, so only the lazy bits need a copy here.
            assert (managed.data_ptr == tensor.data_ptr()) == (answer != "copy")
        result = dlbridge.to_numpy(managed)
        assert result.tobytes() == expected.tobytes() and result.dtype == expected.dtype
        assert result.flags.writeable == (answer != "view ro")


REFUSED = [p.values[0] for p in cells() if p.values[1:] == ("host", "refuse")]
# A managed tensor carries what DLPack can express, also where NumPy cannot.
CARRIED = {"complex32", "float4 pairs"}


@pytest.mark.parametrize("name", [n for n in REFUSED if n not in CARRIED])
@pytest.mark.parametrize("door", ["from_dlpack", "capsule"])
def test_what_no_policy_allows_leaves_by_no_door(road: str, name: str, door: str) -> None:
    with SOURCES[name]() as (tensor, _), pytest.raises(dlbridge.ConversionRefused):
        getattr(dlbridge, door)(tensor)


@pytest.mark.parametrize("name, preset, answer", cells())
def test_capsules_obey_the_same_policies(road: str, name: str, preset: str, answer: str) -> None:
    if name in CARRIED:
        answer = "copy" if preset == "snapshot" else "view"
    elif name in ML_DTYPES:
        answer = "copy" if preset == "snapshot" else "view"  # DLPack does not lack these
    elif name == "bfloat16 in a graph" and preset == "strict":
        answer = "refuse"
    with SOURCES[name]() as (tensor, _):
        if answer == "refuse":
            with pytest.raises(dlbridge.ConversionRefused):
                dlbridge.capsule(tensor, policy=preset)
            return
        capsule = dlbridge.capsule(tensor, policy=preset)
        fields = probe.fields(capsule)
        assert fields["version"] == (1, 3)
        assert fields["shape"] == tuple(tensor.shape)
        assert bool(fields["flags"] & READ_ONLY) == (answer == "view ro")
        if tensor.numel():
            same = fields["data"] + fields["byte_offset"] == tensor.data_ptr()
            assert same == (answer != "copy")
