"""The registry of libraries: open to all, read as data, decided on by the plan alone."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch_sources
from dlb_support import PRESETS, shares
from guarded_sources import CopiesToHost

import dlbridge
from dlbridge import _registry, testing

VALUES = np.arange(6, dtype="f4").reshape(2, 3)


class Grid:
    """A library's object that speaks no protocol."""

    def __init__(self, cells: Any, frozen: bool = False) -> None:
        self.cells = cells
        self.frozen = frozen


Grid.__module__ = "grid_for_tests.core"


def grid(**fields: Any) -> dlbridge.Library:
    row: dict[str, Any] = {
        "name": "grid_for_tests",
        "object": "grid.Grid",
        "read": lambda x: x.cells,
        "capabilities": dlbridge.Capabilities(
            result="grid.Grid", dtypes=("float32",), strides="compact", max_dimensions=2
        ),
        "take": lambda managed: Grid(dlbridge.to_numpy(managed)),
        "address": lambda result: result.cells.ctypes.data,
        "quirks": {"always": "a grid is square", "not_compact": "a grid has rows"},
    }
    return dlbridge.Library(**(row | fields))


def test_a_library_of_ones_own_is_a_target_and_a_source() -> None:
    dlbridge.register(grid())
    result = dlbridge.to(VALUES, "grid_for_tests")
    assert np.shares_memory(result.cells, VALUES)
    assert dlbridge.to(result, "grid_for_tests") is result
    assert np.shares_memory(dlbridge.to_numpy(result), VALUES)
    assert dlbridge.to_torch(result).tolist() == VALUES.tolist()
    copied = dlbridge.to(VALUES.T, "grid_for_tests")
    assert copied.cells.tolist() == VALUES.T.tolist()
    with pytest.raises(dlbridge.ConversionRefused, match="C-contiguous"):
        dlbridge.to(VALUES.T, "grid_for_tests", copy=False)
    with pytest.raises(dlbridge.ConversionRefused, match="at most 2"):
        dlbridge.to(VALUES[None], "grid_for_tests")


def test_explain_says_what_the_library_would_do() -> None:
    dlbridge.register(grid())
    assert dlbridge.explain(VALUES, "grid_for_tests").notes == ("a grid is square",)
    plan = dlbridge.explain(VALUES.T, "grid_for_tests")
    assert plan.notes == ("a grid is square", "a grid has rows")
    assert "note: a grid has rows" in str(plan)


def test_what_dlpack_cannot_say_comes_from_the_row() -> None:
    row = grid(
        conditions=lambda x: ("in_graph",) if x.frozen else (),
        fixes={"in_graph": "x.thaw()"},
    )
    dlbridge.register(row)
    assert dlbridge.to_numpy(Grid(VALUES.copy())).flags.writeable
    assert not dlbridge.to_numpy(Grid(VALUES.copy(), frozen=True)).flags.writeable
    with pytest.raises(dlbridge.ConversionRefused) as refused:
        dlbridge.to_numpy(Grid(VALUES.copy(), frozen=True), policy="strict")
    assert refused.value.fix is not None and "x.thaw()" in refused.value.fix


def test_an_immutable_library_is_never_written_to() -> None:
    dlbridge.register(grid(immutable=True))
    assert not dlbridge.to_numpy(Grid(VALUES.copy())).flags.writeable


def test_a_library_that_hands_out_copies_gives_no_view() -> None:
    dlbridge.register(grid(copies_out=True))
    assert not dlbridge.explain(Grid(VALUES.copy()), "numpy").view
    with pytest.raises(dlbridge.ConversionRefused, match="hands out a copy"):
        dlbridge.to_numpy(Grid(VALUES.copy()), copy=False)


def test_a_library_that_copies_is_told_of() -> None:
    dlbridge.register(grid(take=lambda managed: Grid(np.array(managed))))
    with pytest.warns(dlbridge.SilentCopyWarning):
        dlbridge.to(VALUES, "grid_for_tests")
    with pytest.raises(dlbridge.ConversionRefused, match="without a word"):
        dlbridge.to(VALUES, "grid_for_tests", copy=False)
    with pytest.raises(dlbridge.ConversionRefused, match="without a word"):
        dlbridge.to(VALUES, "grid_for_tests", policy="zero_copy")


def test_a_library_that_says_that_it_copies() -> None:
    capabilities = dlbridge.Capabilities(copies=True, dtypes=("float32",))
    dlbridge.register(grid(capabilities=capabilities, take=lambda managed: Grid(np.array(managed))))
    plan = dlbridge.explain(VALUES, "grid_for_tests")
    assert not plan.view and plan.bytes_copied == VALUES.nbytes
    locked = VALUES.copy()
    locked.flags.writeable = False
    assert dlbridge.to(locked, "grid_for_tests").cells.tolist() == VALUES.tolist()


def test_what_a_library_raises_is_the_cause_of_the_refusal() -> None:
    def take(managed: Any) -> Any:
        raise LookupError("no room")

    dlbridge.register(grid(take=take))
    with pytest.raises(dlbridge.ConversionRefused, match="no room") as refused:
        dlbridge.to(VALUES, "grid_for_tests")
    assert isinstance(refused.value.__cause__, LookupError)


def test_an_interrupt_is_no_refusal() -> None:
    def take(managed: Any) -> Any:
        raise KeyboardInterrupt

    dlbridge.register(grid(take=take))
    with pytest.raises(KeyboardInterrupt):
        dlbridge.to(VALUES, "grid_for_tests")


def test_pinned_memory_is_the_hosts_to_who_reads_it_there() -> None:

    for device in ((3, 0), (1, 7)):
        seen: list[Any] = []
        row = grid(take=lambda managed, seen=seen: seen.append(managed.device), address=None)
        dlbridge.register(row)
        dlbridge.to(testing.HandMade(device=device), "grid_for_tests")
        assert seen == [(1, 0)]
        assert dlbridge.to(testing.HandMade(device=device), "dlbridge").device == device


def test_a_tensor_that_read_gives_meets_the_policy_as_by_itself(road: str) -> None:
    dlbridge.register(grid())
    for name, make in torch_sources.SOURCES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with make() as (x, _):
                for preset in PRESETS:
                    told = dlbridge.explain(Grid(x), "numpy", policy=preset)
                    alone = dlbridge.explain(x, "numpy", policy=preset)
                    for fact in ("refused", "steps", "view", "writable", "bytes_copied"):
                        assert getattr(told, fact) == getattr(alone, fact), (name, preset)


@pytest.mark.parametrize("immutable", [False, True])
def test_a_tensor_that_read_gives_keeps_its_values_and_its_memory(
    road: str, immutable: bool
) -> None:
    dlbridge.register(grid(immutable=immutable))
    conj = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert dlbridge.to_numpy(Grid(conj.imag)).tolist() == [-2, 4]
    assert dlbridge.to_numpy(Grid(conj)).tolist() == [1 - 2j, 3 + 4j]
    x = torch.arange(6.0)
    view = dlbridge.to_numpy(Grid(x))
    assert view.flags.writeable is not immutable and shares(x, view)
    with pytest.raises(RuntimeError, match="not resizable"):
        x.resize_(1000)
    assert not dlbridge.to_numpy(Grid(x[:6].requires_grad_())).flags.writeable
    dense = dlbridge.host.replace(layout="densify")
    sparse = Grid(torch.eye(2).to_sparse())
    assert dlbridge.to_numpy(sparse, policy=dense).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: VALUES.copy(),
        lambda: torch.from_numpy(VALUES.copy()),
        lambda: testing.HandMade(),
        lambda: dlbridge.from_dlpack(VALUES, copy=True),
        lambda: memoryview(VALUES.copy()),
        lambda: np.float32(3),
    ],
    ids=["numpy", "torch", "dlpack", "managed", "buffer", "number"],
)
@pytest.mark.parametrize("fields", [{"immutable": True}, {"conditions": lambda x: ("read_only",)}])
def test_what_a_row_knows_of_its_objects_holds_whatever_read_gives(
    make: Any, fields: dict[str, Any], road: str
) -> None:
    dlbridge.register(grid(**fields))
    assert not dlbridge.to_numpy(Grid(make())).flags.writeable
    assert dlbridge.from_dlpack(Grid(make())).readonly
    assert dlbridge.explain(Grid(make()), "torch").bytes_copied > 0  # torch knows no read-only
    x = make()
    assert dlbridge.to_torch(Grid(x)) is not x and dlbridge.from_dlpack(Grid(x)) is not x
    dlbridge.register(grid(conditions=lambda x: ("nulls",)))
    for target in ("numpy", "torch", "dlbridge"):
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to(Grid(make()), target)


def test_what_read_gives_is_asked_as_what_it_is() -> None:
    class Lazy(Grid):
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise AssertionError("the object itself is not read")

    Lazy.__module__ = Grid.__module__
    dlbridge.register(grid())
    assert dlbridge.to_numpy(Lazy(CopiesToHost(VALUES))).tolist() == VALUES.tolist()


def test_a_number_of_numpys_that_read_gives_is_an_array_of_it() -> None:
    dlbridge.register(grid())
    assert dlbridge.to_numpy(Grid(np.float32(3))).shape == ()
    assert dlbridge.to_torch([Grid(np.int16(3))])[0].dtype is torch.int16


def test_what_read_raises_reaches_the_caller() -> None:
    def read(x: Any) -> Any:
        raise LookupError("no cells")

    dlbridge.register(grid(read=read))
    with pytest.raises(LookupError, match="no cells"):
        dlbridge.to_numpy(Grid(VALUES))


def test_what_read_gives_has_to_be_an_array() -> None:
    dlbridge.register(grid(read=lambda x: 5))
    with pytest.raises(TypeError, match="expected an array or tensor, not "):
        dlbridge.to_numpy(Grid(VALUES))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capabilities": dlbridge.Capabilities(dtypes=("float33",))}, "float33"),
        ({"capabilities": dlbridge.Capabilities(devices=("moon",))}, "moon"),
        ({"capabilities": dlbridge.Capabilities(strides="odd")}, "odd"),  # type: ignore[arg-type]
        ({"quirks": {"on_fire": "it burns"}}, "on_fire"),
        ({"take": None}, "no take"),
        ({"handed": "numpy"}, "use one of 'managed', 'versioned', 'legacy', 'array', 'memoryview'"),
        ({"capabilities": dlbridge.Capabilities(max_dimensions=-1)}, "no number of dimensions"),
        ({"capabilities": dlbridge.Capabilities(min_dimensions=2**40)}, f"min_dimensions={2**40}"),
    ],
)
def test_a_mistake_in_a_row_shows_at_once(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dlbridge.register(grid(**({"name": "grid_with_mistake"} | fields)))
    with pytest.raises(ValueError, match="unknown"):
        dlbridge.to(VALUES, "grid_with_mistake")


def test_register_takes_libraries_only() -> None:
    with pytest.raises(TypeError, match=r"dlbridge\.Library"):
        dlbridge.register("grid")  # type: ignore[arg-type]


def test_an_entry_point_is_loaded_when_its_library_comes_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = []

    def load() -> Any:
        loaded.append("load")
        return lambda: dlbridge.register(grid(name="grid_of_a_plugin"))

    monkeypatch.setattr(_registry, "_entry_points", lambda: {"grid_of_a_plugin": load})
    assert dlbridge.to(VALUES, "grid_of_a_plugin").cells.tolist() == VALUES.tolist()
    assert loaded == ["load"]
    dlbridge.to(VALUES, "grid_of_a_plugin")
    assert loaded == ["load"]


def test_an_entry_point_is_loaded_when_an_object_of_its_library_comes_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Thing(Grid):
        pass

    Thing.__module__ = "grid_that_comes_by.core"
    row = grid(name="grid_that_comes_by", object="Thing")
    monkeypatch.setattr(
        _registry, "_entry_points", lambda: {row.name: lambda: lambda: dlbridge.register(row)}
    )
    assert dlbridge.to_numpy(Thing(VALUES)).tolist() == VALUES.tolist()


def test_entry_points_are_found(tmp_path: Any) -> None:
    from dlb_support import run_child

    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dlbridge.libraries]\nplugin = plugin:register\n")
    (tmp_path / "plugin.py").write_text(
        "import dlbridge\n"
        "class Thing:\n"
        "    def __init__(self, data): self.data = data\n"
        "def register():\n"
        "    dlbridge.register(dlbridge.Library(name='plugin', read=lambda x: x.data))\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import dlbridge, plugin\n"
        "print(dlbridge.to_numpy(plugin.Thing(bytearray(b'abc'))).tolist())"
    )
    assert "[97, 98, 99]" in run_child(code)


def test_a_module_that_nobody_registered() -> None:
    module = types.ModuleType("some_module")
    module.from_dlpack = np.from_dlpack  # type: ignore[attr-defined]
    assert dlbridge.to(VALUES, module).tolist() == VALUES.tolist()
    assert not dlbridge.explain(VALUES, module).refused
    with pytest.raises(ValueError, match="unknown"):
        dlbridge.to(VALUES, sys)


def test_capabilities_that_are_equal_have_one_hash() -> None:
    said = dlbridge.Capabilities(strides="any", dtypes=["float32"])
    unsaid = dlbridge.Capabilities(dtypes=["float32"])
    assert said == unsaid and len({said, unsaid}) == 1
    assert unsaid != dlbridge.Capabilities()


def test_the_built_in_libraries_use_nothing_else() -> None:
    names = [library.name for library in _registry.libraries()]
    assert {"numpy", "torch", "jax", "tensorflow", "paddle", "mlx", "PIL"} <= set(names)
    for library in _registry.libraries():
        if isinstance(library.capabilities, dlbridge.Capabilities):
            assert _registry.target_of(library) is _registry.target_of(library)


class Spoken(Grid):
    """One that exports itself, if it wants to."""

    def __dlpack__(self, **keywords: Any) -> Any:
        if self.frozen:
            raise LookupError("it is frozen")
        return self.cells.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


Spoken.__module__ = Grid.__module__


def test_a_library_says_what_its_own_refusal_means() -> None:
    def refusal(x: Any, error: Exception) -> Any:
        return dlbridge.ConversionRefused(f"{type(x).__name__}: {error}", fix="x.thaw()")

    frozen = Spoken(VALUES, frozen=True)
    dlbridge.register(grid(read=None, refusal=refusal))
    with pytest.raises(dlbridge.ConversionRefused, match="Spoken: it is frozen") as refused:
        dlbridge.to_numpy(frozen)
    assert isinstance(refused.value.__cause__, LookupError) and refused.value.fix == "x.thaw()"
    plan = dlbridge.explain(frozen, "numpy")
    assert plan.refused and plan.fix == "x.thaw()"
    for other in (lambda x, error: None, lambda x, error: "a text", lambda x, error: 1 / 0):
        dlbridge.register(grid(read=None, refusal=other))
        with pytest.raises(LookupError, match="it is frozen"):
            dlbridge.to_numpy(frozen)


def test_a_library_names_the_call_that_makes_numbers() -> None:
    texts = Grid(np.array(["a"]))
    for fix_for, fix in (
        (lambda x: f"x.numbers({x.cells.size})", "x.numbers(1)"),
        (lambda x: None, None),
        (lambda x: 5, None),
        (lambda x: 1 / 0, None),
    ):
        dlbridge.register(grid(fix_for=fix_for))
        with pytest.raises(dlbridge.ConversionRefused, match="no such type") as refused:
            dlbridge.to_torch(texts)
        assert refused.value.fix == fix


def test_an_own_object_comes_back_without_a_look_and_explain_says_so() -> None:
    frozen = Spoken(VALUES, frozen=True)
    dlbridge.register(grid(read=None, conditions=lambda x: ("masked",)))
    assert dlbridge.to(frozen, "grid_for_tests", policy="strict") is frozen
    assert dlbridge.to([frozen], "grid_for_tests")[0] is frozen
    for x in (frozen, Spoken(VALUES)):
        plan = dlbridge.explain(x, "grid_for_tests")
        assert plan.view and not plan.refused and plan.steps == ()
    with pytest.raises(LookupError):
        dlbridge.to(frozen, "grid_for_tests", copy=True)


def test_a_name_alone_is_no_tuple_of_modules() -> None:
    with pytest.raises(TypeError, match="modules is a tuple of names"):
        dlbridge.register(dlbridge.Library(name="some_library", modules="jax"))


@pytest.mark.parametrize("field", ["read", "conditions", "parts", "take", "take_host", "address"])
def test_what_a_row_calls_is_a_function(field: str) -> None:
    with pytest.raises(TypeError, match=rf"Library\.{field} must be a function, not int"):
        dlbridge.register(grid(**{field: 3}))
