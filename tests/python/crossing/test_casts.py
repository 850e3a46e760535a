"""Casts asked for by dtype=: values in range as NumPy casts them, integers out of range refused,
floats out of range as NumPy makes them and with its warning."""

from __future__ import annotations

import gc
import itertools
import platform
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from dlb_support import Producer, live, producer_f32

import dlbridge

INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
SMALL_FLOATS = (
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
    ml_dtypes.float8_e3m4,
    ml_dtypes.float8_e4m3,
    ml_dtypes.float8_e4m3b11fnuz,
)
FLOATS = ("f2", "f4", "f8", *SMALL_FLOATS)
INVALID = "invalid value encountered in cast"
OVERFLOW = "overflow encountered in cast"


def name(dtype: Any) -> str:
    return np.dtype(dtype).name


def limits(dtype: str) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def told(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        result = call()
    assert all(issubclass(each.category, RuntimeWarning) for each in met)
    return result, [str(each.message) for each in met]


def cast(values: np.ndarray, dtype: Any) -> tuple[np.ndarray, list[str]]:
    return told(lambda: dlbridge.to_numpy(values, dtype=dtype))


PAIRS = list(itertools.permutations(INTEGERS, 2))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_an_integer_that_fits_is_cast_as_numpy_casts_it(source: str, target: str) -> None:
    least = max(limits(source)[0], limits(target)[0])
    most = min(limits(source)[1], limits(target)[1])
    values = np.array([least, least + 1, 0, 1, most - 1, most] * 50, source)
    result, warned = cast(values, target)
    np.testing.assert_array_equal(result, values.astype(target))
    assert result.dtype == target
    assert warned == []


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_integers_next_to_the_bounds_are_refused(source: str, target: str) -> None:
    least, most = limits(target)
    first, last = limits(source)
    for value in {least - 1, most + 1, first, last}:
        if first <= value <= last and not least <= value <= most:
            values = np.array([0, value, 1], source)
            with pytest.raises(dlbridge.ConversionRefused) as refused:
                dlbridge.to_numpy(values, dtype=target)
            assert f"x[1] is {value}, which {name(target)} does not hold" in str(refused.value)
            assert refused.value.reasons == (
                f"x[1] is {value}, which {name(target)} does not hold",
            )


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("road", ["linked", "portable"], indirect=True)
def test_following_the_fix_keeps_every_value(road: str, source: str, target: str) -> None:
    first, last = limits(source)
    for extremes in ([first, last], [-1, 1], [0, 300], [0, 70_000], [-200, 0]):
        values = np.array([v for v in extremes if first <= v <= last], source)
        try:
            dlbridge.to_torch(values, dtype=target)
        except dlbridge.ConversionRefused as refused:
            assert refused.fix is not None
            found = re.fullmatch(r'dtype="(\w+)" to cast', refused.fix)
            assert found is not None
            assert np.dtype(found[1]).itemsize == min(
                np.dtype(each).itemsize
                for each in INTEGERS
                if limits(each)[0] <= values.min() and values.max() <= limits(each)[1]
            )
            kept = dlbridge.to_torch(values, dtype=found[1])
            assert kept.tolist() == values.tolist()


@pytest.mark.parametrize("target", [*INTEGERS, *FLOATS, "c8", "c16"])
def test_a_bool_fits_everywhere_and_everything_fits_a_bool(target: Any) -> None:
    flags = np.array([True, False, True])
    result, warned = cast(flags, target)
    np.testing.assert_array_equal(result, flags.astype(target))
    assert warned == []
    if np.dtype(target).kind != "c":
        back, warned = cast(np.array([0, 1, 100], target), "bool")
        assert back.tolist() == [False, True, True]
        assert warned == []


BIG = 3_000_001
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "packed": lambda a: a,
    "strided": lambda a: np.repeat(a, 2)[::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "transposed": lambda a: np.ascontiguousarray(a[: len(a) // 4 * 4].reshape(-1, 4).T).T,
    "of other bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "not aligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [9, 4_000, BIG])
@pytest.mark.parametrize(("source", "target"), [("i8", "u1"), ("u8", "i8"), ("i4", "i2")])
def test_the_first_that_does_not_fit_is_named(
    layout: str, size: int, source: str, target: str
) -> None:
    wrong = limits(source)[1]
    for at in (0, size // 2, size // 4 * 4 - 1):
        values = np.zeros(size, source)
        values[at] = wrong
        values[-1] = wrong
        laid = LAYOUTS[layout](values)
        place = ", ".join(str(i) for i in np.unravel_index(at, laid.shape))
        with pytest.raises(dlbridge.ConversionRefused, match=re.escape(f"x[{place}] is {wrong},")):
            dlbridge.to_numpy(laid, dtype=target)


@pytest.mark.parametrize("ndim", range(6))
def test_the_index_has_a_number_for_each_dimension(ndim: int) -> None:
    values = np.full((1,) * ndim, 300)
    place = "[" + ", ".join("0" * ndim) + "]" if ndim else ""
    with pytest.raises(dlbridge.ConversionRefused, match=re.escape(f"x{place} is 300,")):
        dlbridge.to_numpy(values, dtype="uint8")


def test_elements_that_share_memory_are_named_by_the_first() -> None:
    values = np.broadcast_to(np.array([1, 300], "i4")[:, None], (2, 5))
    with pytest.raises(dlbridge.ConversionRefused, match=r"x\[1, 0\] is 300"):
        dlbridge.to_numpy(values, dtype="u1")
    windows = np.lib.stride_tricks.sliding_window_view(np.array([0, 0, 300, 0], "i4"), 2)
    with pytest.raises(dlbridge.ConversionRefused, match=r"x\[1, 1\] is 300"):
        dlbridge.to_numpy(windows, dtype="u1")


def edges(source: Any, target: str) -> np.ndarray:
    """The floats around the bounds of the integers, and those that are no number."""
    least, most = limits(target)
    around = [-0.0, 0.5, -0.5, 1.5, -1.0, 100.0, least, most, least - 1, most + 1, 2.0**31, 2.0**32]
    around += [2.0**63, 2.0**64, -(2.0**31), -(2.0**31) - 0.5, -(2.0**63), 1e30, -1e30]
    wide = np.array([*around, np.nan, np.inf, -np.inf], "f8")
    wide = np.concatenate([wide, np.nextafter(wide, np.inf), np.nextafter(wide, -np.inf)])
    with np.errstate(all="ignore"):
        return wide.astype(source)


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", FLOATS, ids=name)
def test_a_float_is_warned_of_where_no_integer_is_like_it(source: Any, target: str) -> None:
    least, most = limits(target)
    for value in edges(source, target):
        exact = float(value)
        fits = np.isfinite(exact) and least <= int(exact) <= most
        for count in (1, 3, 100):
            values = np.full(count, value)
            result, warned = cast(values, target)
            assert warned == ([] if fits else [INVALID]), (exact, warned)
            # What does not fit is the processor's affair in NumPy, and ml_dtypes has its own rules.
            if fits or platform.machine() == "x86_64":
                with np.errstate(all="ignore"):
                    expected = np.array([exact], "f8" if source == "f8" else "f4").astype(target)
                np.testing.assert_array_equal(result, expected.repeat(count), err_msg=str(exact))


@pytest.mark.parametrize("at", [0, BIG // 2, BIG - 1])
@pytest.mark.parametrize("source", ["f4", "f8"])
def test_one_float_among_many_is_warned_of(source: str, at: int) -> None:
    values = np.zeros(BIG, source)
    values[at] = np.nan
    assert cast(values, "int32")[1] == [INVALID]
    assert cast(values[::-1], "int32")[1] == [INVALID]
    assert cast(values, "float16")[1] == []
    values[at] = 65520
    assert cast(values, "float16")[1] == [OVERFLOW]
    assert cast(values, "int32")[1] == []


OVERFLOWS = [
    ("f8", "f4", 2.0**128 - 2.0**103, True),
    ("f8", "f4", np.nextafter(2.0**128 - 2.0**103, 0), False),
    ("f8", "f4", 1e300, True),
    ("f8", "f2", 65520.0, True),
    ("f8", "f2", np.nextafter(65520.0, 0), False),
    ("f4", "f2", 65520.0, True),
    ("f4", "f2", 65519.99, False),
    ("f4", ml_dtypes.bfloat16, 3.4e38, True),
    ("f4", ml_dtypes.bfloat16, 3.38e38, False),
    ("f4", ml_dtypes.float8_e4m3fn, 480.0, True),
    ("f4", ml_dtypes.float8_e4m3fn, 448.0, False),
    ("f2", ml_dtypes.float8_e5m2, 61440.0, True),
    ("f2", ml_dtypes.float8_e5m2, 57344.0, False),
    ("i4", "f2", 70_000, True),
    ("i4", "f2", 65504, False),
    ("i8", ml_dtypes.float8_e4m3fn, 1000, True),
    ("c16", "c8", 1e300, True),
    ("c16", "c8", 1e30, False),
    ("f8", "c8", 1e300, True),
]


@pytest.mark.parametrize(("source", "target", "value", "warns"), OVERFLOWS)
def test_a_finite_number_that_does_not_stay_finite_is_warned_of(
    source: str, target: Any, value: float, warns: bool
) -> None:
    for sign in (1, -1):
        for count in (1, 40):
            values = np.full(count, sign * value, source)
            result, warned = cast(values, target)
            assert warned == ([OVERFLOW] if warns else [])
            with np.errstate(all="ignore"):
                assert result.tobytes() == values.astype(target).tobytes()


@pytest.mark.parametrize("target", ["f2", "f4", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_infinity_and_nan_go_to_floats_without_a_word(target: Any) -> None:
    result, warned = cast(np.array([np.inf, -np.inf, np.nan, -0.0], "f8"), target)
    assert warned == []
    assert result.astype("f8").tolist()[:2] == [np.inf, -np.inf]
    assert np.isnan(result.astype("f8")[2])
    assert np.signbit(result.astype("f8")[3])


UNFIT = torch.tensor([1, 300, 2])
NAN = torch.tensor([1.0, float("nan"), float("inf")])
WAYS: dict[str, Callable[[torch.Tensor, str], Any]] = {
    "to_numpy": lambda x, dtype: dlbridge.to_numpy(x, dtype=dtype),
    "to_torch": lambda x, dtype: dlbridge.to_torch(x.numpy(), dtype=dtype),
    "torch to torch": lambda x, dtype: dlbridge.to_torch(x, dtype=dtype),
    "to": lambda x, dtype: dlbridge.to(x, "numpy", dtype=dtype),
    "out": lambda x, dtype: dlbridge.to_numpy(x, dtype=dtype, out=np.empty(3, dtype)),
    "async": lambda x, dtype: dlbridge.to_numpy(x, dtype=dtype, async_=True),
    "a tree": lambda x, dtype: dlbridge.to_numpy([x], dtype=dtype),
    "a capsule": lambda x, dtype: dlbridge.to_numpy(dlbridge.capsule(x), dtype=dtype),
    "ManagedTensor": lambda x, dtype: dlbridge.to_torch(dlbridge.from_dlpack(x), dtype=dtype),
    "__array__": lambda x, dtype: dlbridge.from_dlpack(x).__array__(dtype),
    "a buffer": lambda x, dtype: dlbridge.to_torch(memoryview(x.numpy()), dtype=dtype),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_refuses(road: str, way: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused, match=r"x(\[0\])?\[1\] is 300"):
        WAYS[way](UNFIT, "uint8")


# In a tree a dtype is for leaves of its own kind.
TO_ANOTHER_KIND = [way for way in WAYS if way != "a tree"]


@pytest.mark.parametrize("way", TO_ANOTHER_KIND)
def test_every_way_warns(road: str, way: str) -> None:
    result, warned = told(lambda: WAYS[way](NAN, "int32"))
    assert INVALID in warned
    assert result is not None


@pytest.mark.parametrize("way", TO_ANOTHER_KIND)
def test_a_warning_that_is_an_error_comes_to_the_caller(road: str, way: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=INVALID):
            WAYS[way](NAN, "int32")


def test_a_tree_warns_of_its_leaves(road: str) -> None:
    tree = [np.array([1e300]), torch.tensor([7])]
    with pytest.warns(RuntimeWarning, match="overflow encountered in cast"):
        result = dlbridge.to_numpy(tree, dtype="float32")
    assert np.isinf(result[0]).all() and result[1].tolist() == [7]


def test_errstate_has_the_last_word_as_for_numpy() -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        assert cast(np.array([np.nan]), "i4")[1] == []
        assert cast(np.array([1e300]), "f4")[1] == []
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        dlbridge.to_numpy(np.array([np.nan]), dtype="i4")


def test_the_warning_names_the_line_of_the_call() -> None:
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        dlbridge.to_numpy(NAN, dtype="int32")
    assert [each.filename for each in met] == [__file__]


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"label": np.array([300])}, "x['label'][0]"),
        ([np.array([1]), (np.array([[1], [300]]),)], "x[1][0][1, 0]"),
        ({"a": [torch.tensor(300)]}, "x['a'][0]"),
    ],
)
def test_in_a_tree_the_leaf_is_named(tree: Any, place: str) -> None:
    with pytest.raises(dlbridge.ConversionRefused) as refused:
        dlbridge.to_numpy(tree, dtype="uint8")
    assert f"{place} is 300, which uint8 does not hold" in str(refused.value)


def test_the_producer_is_let_go_once_and_the_copy_freed() -> None:
    before = live()
    for _ in range(3):
        made = producer_f32(6)
        source: Producer = made[0] if isinstance(made, tuple) else made
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with np.errstate(invalid="raise"):
                dlbridge.to_numpy(source, dtype="int32")
        values = np.arange(1 << 18)
        with pytest.raises(dlbridge.ConversionRefused):
            dlbridge.to_torch(values, dtype="int8")
    del made, source
    gc.collect()
    assert live() == before


def test_threads_that_refuse_together_name_their_own() -> None:
    said: dict[int, str] = {}

    def one(at: int) -> None:
        values = np.zeros(1 << 18, "i8")
        values[at] = 1000 + at
        try:
            dlbridge.to_numpy(values, dtype="i1")
        except dlbridge.ConversionRefused as refused:
            said[at] = str(refused)

    threads = [threading.Thread(target=one, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"x[{at}] is {1000 + at}," in said[at] for at in range(8))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_what_makes_a_real_number_of_a_complex_one_is_said(make: Any) -> None:
    x = make([1j, 0, 2 + 1j])
    for dtype, values in (
        ("bool", [True, False, True]),
        ("float32", [0, 0, 2]),
        ("int8", [0, 0, 2]),
    ):
        with pytest.raises(dlbridge.ConversionRefused) as refused:
            dlbridge.to_numpy(x, dtype=dtype)
        call = str(refused.value.fix).partition(" (")[0]
        assert dlbridge.to_numpy(eval(call), dtype=dtype).tolist() == values


def test_a_fix_names_a_type_that_the_target_has() -> None:
    dlbridge.register(
        dlbridge.Library(
            name="narrow_row",
            capabilities=dlbridge.Capabilities(dtypes=("int8", "int32"), read_only="honours"),
            take=dlbridge.to_numpy,
        )
    )
    for value, fix in [(300, 'dtype="int32" to cast'), (2**40, None)]:
        with pytest.raises(dlbridge.ConversionRefused, match="int8 does not hold") as refused:
            dlbridge.to(np.array([value]), "narrow_row", dtype="int8")
        assert refused.value.fix == fix
    with pytest.raises(dlbridge.ConversionRefused, match="narrow_row has no dtype int16"):
        dlbridge.to(np.ones(1), "narrow_row", dtype="int16")


def test_a_dtype_that_no_triple_holds_is_a_value_error() -> None:
    class Wide:
        def __dlpack_data_type__(self) -> tuple[int, int, int]:
            return 0, 264, 1

    with pytest.raises(ValueError, match="264 does not fit"):
        dlbridge.to_numpy(np.ones(1), dtype=Wide())
    with pytest.raises(ValueError, match="264 does not fit"):
        str(type(dlbridge.from_dlpack(np.ones(1)).dtype)(0, 264))


def test_what_a_librarys_own_cast_may_change_is_said(road: str) -> None:
    """Followed, it would wrap what ours refuses."""
    for x, cast in (
        (np.array([300]), 'x.astype("uint8")'),
        (torch.tensor([300.0]), "x.to(torch.uint8)"),
        (np.ma.array([300]), 'x.filled().astype("uint8") (the mask is lost; '),
    ):
        for how in ({"copy": False}, {"policy": "strict"}):
            fix = str(dlbridge.explain(x, "numpy", dtype="uint8", **how).fix)
            assert cast in fix and fix.endswith("values that do not fit change)")
    for x, dtype in ((np.array([3], "u1"), "int16"), (np.array([3]), "float32")):
        assert "fit" not in str(dlbridge.explain(x, "numpy", dtype=dtype, copy=False).fix)
