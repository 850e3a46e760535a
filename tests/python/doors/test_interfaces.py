"""The array interfaces and the buffer protocol as sources."""

from __future__ import annotations

import array as array_module
import ctypes
import gc
import mmap
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from dlb_support import address, settle

import dlbridge

VALUES = np.arange(6, dtype="f4")


class Interface:
    """Like a PIL image: nothing but __array_interface__."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self.array = array
        self.changes = changes

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return dict(self.array.__array_interface__) | self.changes


def test_an_array_interface_is_viewed_without_a_copy() -> None:
    source = Interface(np.arange(6, dtype="f4").reshape(2, 3))
    result = dlbridge.to_numpy(source)
    assert result.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert address(result) == address(source.array)
    assert result.flags.writeable
    result[0, 0] = 9
    assert source.array[0, 0] == 9


def test_a_view_of_an_array_interface_keeps_its_object_alive() -> None:
    source = Interface(np.arange(6.0))
    gone = weakref.ref(source)
    result = dlbridge.to_numpy(source)
    del source
    gc.collect()
    assert gone() is not None and result[5] == 5
    del result
    settle()
    assert gone() is None


def test_the_read_only_flag_of_an_array_interface_counts(road: str) -> None:
    source = Interface(VALUES.copy(), data=(address(VALUES), True))
    assert not dlbridge.to_numpy(source).flags.writeable
    assert dlbridge.to_torch(source).data_ptr() != address(VALUES)
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(source, policy="strict")


def test_an_array_interface_may_have_strides_and_none_for_c_order(road: str) -> None:
    base = np.arange(12, dtype="i4").reshape(3, 4)
    assert dlbridge.to_numpy(Interface(base[:, ::2])).tolist() == base[:, ::2].tolist()
    assert dlbridge.to_torch(Interface(base.T)).tolist() == base.T.tolist()
    assert dlbridge.to_numpy(Interface(base, strides=None)).tolist() == base.tolist()
    assert dlbridge.to_torch(Interface(base[::-1])).tolist() == base[::-1].tolist()


def test_an_array_interface_with_bytes_as_its_data_is_read_only() -> None:
    # As PIL gives it: data is a bytes object, not a pointer.
    class Image:
        __array_interface__: ClassVar = {
            "version": 3,
            "shape": (2, 3),
            "typestr": "|u1",
            "data": bytes(range(6)),
        }

    result = dlbridge.to_numpy(Image())
    assert result.tolist() == [[0, 1, 2], [3, 4, 5]] and result.dtype == np.uint8
    assert not result.flags.writeable


def test_an_array_interface_of_swapped_bytes_is_copied(road: str) -> None:
    swapped = np.arange(6, dtype=np.dtype("f4").newbyteorder())
    assert dlbridge.to_torch(Interface(swapped)).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_torch(Interface(swapped), policy="strict")


@pytest.mark.parametrize(
    "changes",
    [
        {"typestr": "nonsense"},
        {"typestr": 5},
        {"typestr": "|O"},
        {"typestr": "<f3"},
        {"shape": (-2,)},
        {"shape": None},
        {"shape": (2**62, 2**62)},
        {"shape": (1,) * 65},
        {"strides": (1, 2, 3)},
        {"strides": "abc"},
        {"data": None},
        {"data": (0, False)},
        {"data": ("x", False)},
        {"data": b"ab"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("door", ["to_numpy", "to_torch", "from_dlpack"])
def test_a_malformed_array_interface_is_refused(
    road: str, changes: dict[str, Any], door: str
) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        getattr(dlbridge, door)(Interface(VALUES.copy(), **changes))


@pytest.mark.parametrize("missing", ["shape", "typestr"])
def test_an_array_interface_without_a_required_key_is_refused(missing: str) -> None:
    class Partial:
        @property
        def __array_interface__(self) -> dict[str, Any]:
            whole = dict(VALUES.__array_interface__)
            del whole[missing]
            return whole

    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(Partial())


def test_an_exception_of_the_read_only_flag_comes_through() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise KeyError("read-only?")

    array = np.arange(3.0)
    with pytest.raises(KeyError, match=r"read-only\?"):
        dlbridge.to_numpy(Interface(array, data=(array.ctypes.data, Undecided())))


def test_an_exception_of_the_interface_property_comes_through() -> None:
    error = OSError("mine")

    class Broken:
        @property
        def __array_interface__(self) -> Any:
            raise error

    with pytest.raises(OSError) as caught:
        dlbridge.to_numpy(Broken())
    assert caught.value is error
    error.__traceback__ = None


class OnGpu:
    """A CuPy look-alike whose memory nobody here can reach."""

    __cuda_array_interface__: ClassVar = {
        "version": 3,
        "shape": (4,),
        "typestr": "<f4",
        "data": (0, False),
        "strides": None,
    }


@pytest.mark.parametrize("preset", ["strict", "host", "zero_copy", "snapshot"])
def test_a_cuda_interface_without_memory_behind_it_is_refused(preset: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(OnGpu(), policy=preset)


# --- buffers ----------------------------------------------------------------------------------


def buffers(folder: Path) -> dict[str, tuple[Any, np.ndarray, bool]]:
    """name: (source, the array it must become, writable)."""
    wide = np.arange(24, dtype="i4").reshape(2, 3, 4)
    (folder / "file").write_bytes(bytes(range(16)))
    with open(folder / "file", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 16)
        mapped_ro = mmap.mmap(file.fileno(), 16, access=mmap.ACCESS_READ)
    raw = np.frombuffer(bytes(range(16)), "u1")
    return {
        "bytes": (b"\x00\x01\x02", np.arange(3, dtype="u1"), False),
        "bytearray": (bytearray(b"\x00\x01\x02"), np.arange(3, dtype="u1"), True),
        "memoryview": (memoryview(bytearray(3)), np.zeros(3, "u1"), True),
        "memoryview, 3 dims": (memoryview(wide), wide, True),
        "memoryview, cast": (memoryview(bytearray(8)).cast("h"), np.zeros(4, "i2"), True),
        "memoryview, strided": (memoryview(wide[:, ::2, ::-1]), wide[:, ::2, ::-1], True),
        "memoryview, read-only": (memoryview(wide).toreadonly(), wide, False),
        "memoryview, complex": (memoryview(np.array([1j, 2])), np.array([1j, 2]), True),
        "array of doubles": (array_module.array("d", [1, 2]), np.array([1.0, 2.0]), True),
        "array of longs": (array_module.array("l", [1, 2]), np.array([1, 2], np.dtype("l")), True),
        "ctypes array": ((ctypes.c_int32 * 3)(1, 2, 3), np.array([1, 2, 3], "i4"), True),
        "ctypes array, 2 dims": (((ctypes.c_double * 2) * 3)(), np.zeros((3, 2)), True),
        "ctypes scalar": (ctypes.c_double(2.5), np.array(2.5), True),
        "ctypes bool": ((ctypes.c_bool * 2)(True, False), np.array([True, False]), True),
        "mmap": (mapped, raw, True),
        "mmap, read-only": (mapped_ro, raw, False),
        "bytes, empty": (b"", np.zeros(0, "u1"), False),
    }


NAMES = [
    "bytes",
    "bytearray",
    "memoryview",
    "memoryview, 3 dims",
    "memoryview, cast",
    "memoryview, strided",
    "memoryview, read-only",
    "memoryview, complex",
    "array of doubles",
    "array of longs",
    "ctypes array",
    "ctypes array, 2 dims",
    "ctypes scalar",
    "ctypes bool",
    "mmap",
    "mmap, read-only",
    "bytes, empty",
]


def test_every_buffer_is_named(tmp_path: Path) -> None:
    assert list(buffers(tmp_path)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_buffer_becomes_an_array(road: str, tmp_path: Path, name: str) -> None:
    source, expected, writable = buffers(tmp_path)[name]
    result = dlbridge.to_numpy(source)
    assert type(result) is np.ndarray
    assert result.dtype == expected.dtype and result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()
    assert result.flags.writeable == writable
    if writable:  # shared: a write through one door is seen through another
        other = dlbridge.to_numpy(source)
        flat = (0,) * result.ndim
        result[flat] = 1 if other[flat] != 1 else 0
        assert other[flat] == result[flat]


@pytest.mark.parametrize("name", NAMES)
def test_a_buffer_becomes_a_tensor(road: str, tmp_path: Path, name: str) -> None:
    source, expected, writable = buffers(tmp_path)[name]
    before = expected.tobytes()
    tensor = dlbridge.to_torch(source)
    assert tuple(tensor.shape) == expected.shape
    assert tensor.numpy().tobytes() == before
    tensor.zero_()
    if not writable:
        assert memoryview(source).tobytes() == before


def test_a_view_keeps_the_buffer_exported(road: str) -> None:
    for convert in (dlbridge.to_numpy, dlbridge.to_torch, dlbridge.from_dlpack):
        source = bytearray(64)
        view = convert(source)
        with pytest.raises(BufferError):
            source.extend(b"x" * 100)
        del view
        settle()
        source.extend(b"x" * 100)
        assert len(source) == 164


@pytest.mark.parametrize(
    "make",
    [lambda: (ctypes.c_char_p * 2)(), lambda: (ctypes.c_void_p * 2)()],
    ids=["char pointers", "pointers"],
)
def test_buffers_of_what_is_no_number_are_refused(make: Any) -> None:
    # Pointers are carried by some as integers; a library that reports every cast does not.
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(make())


def test_a_released_memoryview_raises_pythons_own_error() -> None:
    view = memoryview(bytearray(3))
    view.release()
    with pytest.raises((ValueError, BufferError)):
        dlbridge.to_numpy(view)


@pytest.mark.parametrize("step", [-1, 2])
def test_data_with_gaps_is_refused(step: int) -> None:
    class Gaps:
        def __init__(self, data: Any) -> None:
            self.__array_interface__ = {"shape": (4,), "typestr": "|u1", "version": 3, "data": data}

    memory = memoryview(bytearray(range(64)))[::step]
    for data in (memory, np.asarray(memory)):
        with pytest.raises(dlbridge.ConversionRefused, match="a buffer with gaps"):
            dlbridge.to_numpy(Gaps(data))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("__array_interface__", {"data": bytearray(8), "offset": "x"}),
        ("__array_interface__", {"data": bytearray(8), "offset": 1 << 70}),
        *(("__cuda_array_interface__", {"stream": stream}) for stream in (0, -1, "x", 1 << 70)),
    ],
)
def test_numbers_of_an_interface_that_are_none_are_refused(name: str, changes: Any) -> None:
    memory = np.zeros(4, "u1")
    said = {"shape": (4,), "typestr": "|u1", "version": 3, "data": (address(memory), False)}
    bad = type("Bad", (), {name: said | changes})()
    with pytest.raises(dlbridge.ConversionRefused, match=r"offset|stream"):
        dlbridge.from_dlpack(bad)


class Pair(ctypes.Structure):
    _fields_ = (("small", ctypes.c_float), ("large", ctypes.c_double))


@pytest.mark.filterwarnings("ignore:A builtin ctypes object")  # a fault of CPython's before 3.12
def test_structs_are_numpys_and_fields_elsewhere(road: str) -> None:
    pairs = (Pair * 3)((1, 2), (3, 4), (5, 6))
    structs = np.array([(1, 2), (3, 4)], np.dtype([("small", "f4"), ("large", "f8")], align=True))
    for x, count in (
        (pairs, 3),
        (memoryview(pairs), 3),
        (Interface(structs), 2),
        (structs, 2),
        (structs.view(np.recarray), 2),
    ):
        made = dlbridge.to_numpy(x)
        assert made.shape == (count,) and made["large"].tolist() == [2, 4, 6][:count]
        assert address(made) == address(structs if count == 2 else np.frombuffer(pairs, "u1"))
        assert dlbridge.explain(x, "numpy").view
        with pytest.raises(dlbridge.ConversionRefused, match="structured") as refused:
            dlbridge.to_torch(x)
        field = dlbridge.to_torch(eval(refused.value.fix.partition(" (")[0]))
        assert field.tolist() == [1, 3, 5][:count] and field.data_ptr() == address(made)
        fields = dlbridge.to_torch({name: made[name] for name in made.dtype.names})
        assert fields["large"].data_ptr() == made["large"].ctypes.data


class Call(ctypes.Structure):
    _fields_ = (("call", ctypes.CFUNCTYPE(None)),)


PLACES = np.zeros(3, [("x", "f4"), ("y", "i8")])


@pytest.mark.parametrize(
    "x",
    [
        (Call * 2)(),
        Interface(np.zeros(3, "V12")),
        Interface(PLACES, descr=[]),
        Interface(PLACES, descr="xy"),
        Interface(PLACES, descr=[("x", "f8"), ("y", "c16")]),
        Interface(PLACES, descr=[("x", "O"), ("y", "i4")]),
        Interface(PLACES, mask=np.zeros(3, bool)),
    ],
    ids=["function", "no fields", "none", "no list", "larger", "objects", "masked"],
)
def test_structs_that_lie_or_mean_more_are_refused(x: Any) -> None:
    with pytest.raises(dlbridge.ConversionRefused):
        dlbridge.to_numpy(x)
    assert dlbridge.explain(x, "numpy").refused


@pytest.mark.filterwarnings("ignore:A builtin ctypes object")
def test_structs_keep_their_object_and_its_read_only_flag() -> None:
    pairs = (Pair * 2)()
    gone = weakref.ref(pairs)
    made = dlbridge.to_numpy(pairs)
    assert made.flags.writeable
    assert not dlbridge.to_numpy(memoryview(pairs).toreadonly()).flags.writeable
    del pairs
    gc.collect()
    assert gone() is not None
    del made
    settle()
    assert gone() is None


TEXTS_AND_DATES = [
    np.array(["ab", "c"]),
    np.array(["ab"]).astype(">U2"),
    np.array([b"ab", b"c"]),
    np.array(["2020", "NaT"], "M8[D]"),
    np.array([1, 2]).astype(">m8[s]"),
    np.ones(2, np.longdouble),
]


@pytest.mark.parametrize("array", TEXTS_AND_DATES, ids=lambda array: array.dtype.str)
def test_texts_and_dates_of_an_interface_are_numpys_too(array: np.ndarray) -> None:
    x = Interface(array)
    made = dlbridge.to_numpy(x)
    assert made.dtype == array.dtype and address(made) == address(array)
    assert dlbridge.explain(x, "numpy").view
    assert dlbridge.to_numpy({"x": x})["x"].dtype == array.dtype
    with pytest.raises(dlbridge.ConversionRefused, match="no such type") as refused:
        dlbridge.from_dlpack(x)
    numbers = dlbridge.from_dlpack(eval(refused.value.fix.partition(" (")[0]))
    assert numbers.shape == array.shape
    if array.dtype.kind != "f":
        assert dlbridge.to({"x": x, "y": VALUES}, "dlbridge")["x"] is x


def test_texts_of_a_buffer_are_numpys_too() -> None:
    text = array_module.array("w" if "w" in array_module.typecodes else "u", "ab")
    for x in (text, memoryview(b"ab").cast("c")):
        made = dlbridge.to_numpy(x)
        assert made.tolist() in (["a", "b"], [b"a", b"b"])
        assert made.flags.writeable == (x is text)
        assert dlbridge.explain(x, "torch").fix.endswith("(numbers for the texts)")


class HereOrThere:
    """As those of Warp: of the two interfaces an object has the one of its memory."""

    def __init__(self, missing: Exception) -> None:
        self.array = np.arange(3)
        self.missing = missing

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise self.missing

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


def test_an_interface_that_an_object_has_not_leaves_the_next() -> None:
    x = HereOrThere(AttributeError("it is on the host"))
    assert address(dlbridge.to_numpy(x)) == address(x.array)
    assert dlbridge.explain(x, "numpy").view and dlbridge.from_dlpack(x).readonly is False
    other = HereOrThere(RuntimeError("its own"))
    with pytest.raises(RuntimeError) as raised:
        dlbridge.to_numpy(other)
    assert raised.value is other.missing
    for kind in (Nowhere, NotByDLPack):
        with pytest.raises(AttributeError, match="nowhere"):
            dlbridge.to_numpy(kind())


class Nowhere:
    @property
    def __array_interface__(self) -> dict[str, Any]:
        raise AttributeError("nowhere")


class NotByDLPack:
    @property
    def __dlpack__(self) -> Any:
        raise AttributeError("nowhere")


class ByInterface(NotByDLPack):
    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.array.__array_interface__


class NotByArrow(NotByDLPack):
    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __arrow_c_array__(self) -> Any:
        raise AttributeError("nowhere")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.array


@pytest.mark.parametrize("kind", [ByInterface, NotByArrow])
def test_a_protocol_that_an_object_has_not_leaves_the_next(kind: Any) -> None:
    x = kind(np.arange(3))
    for made in (dlbridge.to_numpy(x), dlbridge.to_numpy([x])[0], dlbridge.to_torch(x)):
        assert made.tolist() == [0, 1, 2]
    assert not dlbridge.explain(x, "numpy").refused
