"""Crossings in which call N fails: what is called, and every way to cross or to be refused."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from types import FunctionType, SimpleNamespace
from typing import Any

import dlbridge_probe as probe
import numpy as np
import scipy.sparse  # noqa: F401  # keeps arrays of its own from then on
from dlb_support import Producer, make_f32
from lazy_sources import Lazy, Old, Silent

import dlbridge

# How each function that the module imports says that it failed; "no memory" sets no error. What
# cannot fail, or must not (it releases, it reports), is in CANNOT_FAIL.
# fmt: off
FAILURES = {
    **dict.fromkeys((
        "PyBytes_FromStringAndSize",
        "PyCapsule_New", "PyDict_Copy", "PyDict_GetItemWithError", "PyDict_New",
        "PyDict_SetDefault", "PyImport_GetModule",
        "PyImport_ImportModule", "PyList_GetSlice", "PyList_New", "PyLong_AsVoidPtr",
        "PyLong_FromLong",
        "PyLong_FromLongLong", "PyLong_FromSize_t", "PyLong_FromUnsignedLong",
        "PyLong_FromUnsignedLongLong",
        "PyLong_FromVoidPtr",
        "PyMemoryView_FromObject", "PyNumber_Index",
        "PyNumber_Long", "PyObject_Call", "PyObject_CallFunction",
        "PyObject_CallFunctionObjArgs", "PyObject_CallMethod",
        "PyObject_CallNoArgs", "PyObject_CallOneArg", "PyObject_GenericGetDict",
        "PyObject_GetAttr", "PyObject_GetAttrString", "PyObject_Repr", "PyObject_Str",
        "PyObject_VectorcallMethod",
        "PySequence_Concat", "PySequence_Fast", "PySequence_GetItem", "PySequence_Tuple",
        "PyTuple_New", "PyTuple_Pack",
        "PyUnicode_AsUTF8", "PyUnicode_DecodeUTF8", "PyUnicode_FromFormat", "PyUnicode_FromString",
        "PyUnicode_FromStringAndSize", "PyUnicode_InternFromString", "Py_BuildValue",
        "_PyObject_New", "_Z16THPVariable_WrapN2at10TensorBaseE",
        "_Z16THPVariable_WrapRKN2at10TensorBaseE", "_PyObject_CallFunction_SizeT",
        "_PyObject_CallMethod_SizeT", "_Py_BuildValue_SizeT",
    ), "null"),
    **dict.fromkeys((
        "PyCapsule_SetName", "PyContextVar_Get", "PyErr_CheckSignals", "PyList_Append",
        "PyDict_DelItemString", "PyDict_SetItem",
        "PyDict_SetItemString",
        "PyLong_AsLong", "PyLong_AsLongAndOverflow", "PyLong_AsSize_t", "PyLong_AsUnsignedLongLong",
        "PyObject_RichCompareBool", "PyLong_AsLongLong", "PyLong_AsUnsignedLong",
        "PyObject_GetBuffer", "PyObject_IsInstance", "PyObject_IsTrue", "PySequence_Size",
        "PySet_Contains", "PyType_Ready", "PyDict_Contains",
    ), "minus one"),
    **dict.fromkeys(("PyArg_ParseTuple", "PyArg_ParseTupleAndKeywords"), "zero"),
    **dict.fromkeys((
        "PyMem_Malloc", "PyObject_Malloc", "aligned_alloc", "malloc",
        "_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t",
    ), "no memory"),
    **dict.fromkeys(("_Znwm", "_Znam"), "throw"),
}
NUMPY_FAILURES = {  # by their places in NumPy's table of functions, which never change
    45: ("PyArray_DescrFromType", "null"),
    61: ("PyArray_FromScalar", "null"),
    69: ("PyArray_FromAny", "null"),
    94: ("PyArray_NewFromDescr", "null"),
    174: ("PyArray_DescrConverter", "zero"),
    282: ("PyArray_SetBaseObject", "minus one, taken"),
}
TABLE_FAILURES = {  # the slots of an exchange table
    0: ("managed_tensor_allocator", "minus one"),
    1: ("managed_tensor_from_py_object_no_sync", "minus one"),
    2: ("managed_tensor_to_py_object_no_sync", "minus one"),
    3: ("dltensor_from_py_object_no_sync", "minus one"),
}
CANNOT_FAIL = {
    "PyBool_FromLong", "PyBuffer_IsContiguous", "PyBuffer_Release", "PyCapsule_GetName",
    "PyException_SetCause", "PyException_SetTraceback",
    "PyCapsule_GetPointer", "PyCapsule_IsValid",
    "PyDict_GetItemString", "PyDict_Next", "PyErr_Clear",
    "PyErr_ExceptionMatches", "PyErr_Fetch", "PyErr_Format", "PyErr_NoMemory",
    "PyErr_NormalizeException", "PyErr_Occurred", "PyErr_Restore", "PyErr_SetObject",
    "PyErr_SetString", "PyErr_WriteUnraisable", "PyList_SetItem",
    "PyEval_GetFrame", "PyEval_RestoreThread", "PyEval_SaveThread", "PyFrame_GetBack",
    "PyFrame_GetCode", "PyFrame_GetLineNumber",
    "PyGILState_Check", "PyGILState_Ensure", "PyGILState_Release",
    "PyImport_GetModuleDict", "PyMem_Free", "PyObject_ClearWeakRefs", "PyObject_Free",
    "PyThread_get_thread_ident",
    "PyObject_HasAttrString", "PyObject_Init", "PySequence_Check", "PyTuple_GetItem",
    "PyTuple_Size", "PyType_IsSubtype", "PyType_Modified", "PyUnicode_CompareWithASCIIString",
    "Py_AddPendingCall", "Py_EnterRecursiveCall", "Py_IsInitialized", "Py_LeaveRecursiveCall",
    "_PyObject_GetDictPtr", "_Py_Dealloc",
    # Only while the module is imported.
    "PyModule_AddObjectRef", "PyModule_AddStringConstant", "PyModule_Create2",
    "PyInterpreterState_Get", "PyInterpreterState_Main", "PyModuleDef_Init",
    # They tell of Python itself.
    "PyThreadState_GetUnchecked", "Py_IsFinalizing", "_PyThreadState_UncheckedGet",
    "_Py_IsFinalizing",
}
# fmt: on

MOST_CALLS = 3000  # of a crossing: more is a loop


class InjectedError(MemoryError):
    """What a call raises that was told to fail."""


def extensions() -> list[str]:
    """The files of our extensions that are loaded."""
    names = [name for name in sys.modules if name.startswith("dlbridge._torch_")]
    return [sys.modules[name].__file__ for name in ["dlbridge._core", *names]]


@contextmanager
def patched() -> Iterator[set[str]]:
    """Calls of our extensions can fail; gives the names of the module's imports that cannot."""
    module, *companions = extensions()
    others = set(probe.patch_imports(module, FAILURES))
    for companion in companions:
        probe.patch_imports(companion, FAILURES)
    core = (
        sys.modules.get("numpy._core._multiarray_umath")
        or sys.modules["numpy.core._multiarray_umath"]
    )
    probe.patch_table(core._ARRAY_API, "", 0, NUMPY_FAILURES)
    torch = sys.modules.get("torch")
    if torch is not None:
        table = torch.Tensor.__dlpack_c_exchange_api__
        # Behind the version and the pointer to the previous table.
        probe.patch_table(table, "dlpack_exchange_api", 16, TABLE_FAILURES)
    try:
        yield others
    finally:
        probe.unpatch()


@dataclass(frozen=True)
class Case:
    """A crossing: of a fresh source every time, with what comes out of it, or the refusal."""

    make: Callable[[], Any]
    cross: Callable[[Any], Any]
    values: Any = (0, 1, 2, 3, 4, 5)
    refused: str | None = None  # part of the text
    torch: bool = False  # it depends on the road to torch


def asking(cross: Callable[..., Any], **how: Any) -> Callable[[Any], Any]:
    """Not functools.partial: CPython 3.11's keeps its arguments for ever if memory ends in it."""
    return lambda source: cross(source, **how)


def values_of(result: Any) -> Any:
    if isinstance(result, dict):
        return {key: values_of(value) for key, value in result.items()}
    if isinstance(result, list):
        return [values_of(value) for value in result]
    if type(result).__name__ == "PyCapsule":
        result = dlbridge.from_dlpack(result)
    if isinstance(result, dlbridge.ManagedTensor):
        result = dlbridge.to_numpy(result)
    if isinstance(result, SimpleNamespace):
        result = result.cells
    if hasattr(result, "tolist"):
        values = result.tolist()
        return tuple(values) if isinstance(values, list) else values
    return result


class Bare(Producer):
    """A producer that does not know max_version."""

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return self.source.capsule(versioned=False)


class Interface:
    def __init__(self) -> None:
        self.array = np.arange(6.0)
        self.interface = self.array.__array_interface__
        self.__class__ = type("Interface", (type(self),), {})  # probed anew each time

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.interface


class DataInterface(Interface):
    """An interface whose memory is a buffer, with strides."""

    def __init__(self) -> None:
        super().__init__()
        self.interface |= {"data": memoryview(self.array), "strides": (8,)}


F32 = np.arange(6, dtype="f4")


def producer(kind: type[Producer] = Producer, **recipe: Any) -> Any:
    fresh = type(kind.__name__, (kind,), {})  # a new type is probed anew
    return fresh(**({"data": F32.tobytes(), "shape": (6,)} | recipe))


def lazy(kind: type, array: Any = F32) -> Any:
    return type(kind.__name__, (kind,), {})(array)


def tabled(kind: str = "good") -> Any:
    fresh = type(
        "Tabled", (probe.Producer,), {"__dlpack_c_exchange_api__": probe.table_named(kind)}
    )
    return fresh(data=F32.tobytes(), shape=(6,))


def swallow(answer: dict[str, Any]) -> dict[str, Any]:
    """What a slot of an exchange table gave, with its error raised."""
    if answer["error"] is not None:
        raise answer["error"]
    return answer


def allocated(answer: dict[str, Any]) -> Any:
    if answer["rc"] != 0:
        ((kind, text),) = answer["said"]
        raise {"MemoryError": InjectedError, "ValueError": ValueError}[kind](text)
    return len(answer["held"].fields()["shape"])


OURS = probe.Table(dlbridge.ManagedTensor.__dlpack_c_exchange_api__)


def bf16() -> Any:
    import torch

    return torch.arange(6, dtype=torch.bfloat16)


def tensor() -> Any:
    import torch

    return torch.arange(6.0)


def registered() -> str:
    """The name of a library that was registered for these tests."""
    name = "box_for_failing_calls"
    dlbridge.register(
        dlbridge.Library(
            name=name,
            object="box.Box",
            read=lambda x: x.cells,
            capabilities=dlbridge.Capabilities(result="box.Box", dtypes=("float32", "float64")),
            take=lambda managed: SimpleNamespace(cells=dlbridge.to_numpy(managed)),
            address=lambda result: result.cells.ctypes.data,
        )
    )
    return name


def borrowing_tensor() -> Any:
    """Over memory whose deleter tells whether everybody gave it back."""
    import torch

    return torch.from_dlpack(make_f32()[0])


def in_graph() -> Any:
    return tensor().requires_grad_()


def conjugated() -> Any:
    import torch

    return torch.arange(6.0).to(torch.complex64).conj()


def torch_read_only() -> Any:
    array = np.arange(6.0)
    array.flags.writeable = False
    return array


def cast_in_silence(x: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return to_numpy(x, dtype="int32")


def struct() -> Any:
    return np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])


to_numpy, to_torch, from_dlpack = dlbridge.to_numpy, dlbridge.to_torch, dlbridge.from_dlpack


def shared(x: Any) -> Any:
    return dlbridge._core.cross_to(x, "process", *[None] * 7, False)


def passed(x: Any) -> Any:
    message = dlbridge._core.pack_shared([shared(x)], "read", b"")
    return dlbridge._core.unpack_shared(*message)[1][0]


CASES: dict[str, Case] = {
    # views and copies between the libraries with bridges of their own
    "array to array": Case(lambda: np.arange(6.0), to_numpy),
    "array copied": Case(lambda: np.arange(6.0), asking(to_numpy, copy=True)),
    "array cast": Case(lambda: np.arange(6.0), asking(to_numpy, dtype="float32")),
    "array cast with a warning": Case(
        lambda: np.array([np.nan]), cast_in_silence, values=(-(2**31),)
    ),
    "array swapped": Case(lambda: np.arange(6.0).astype(">f8"), from_dlpack),
    "array into out": Case(lambda: np.arange(6.0), lambda x: to_numpy(x, out=np.zeros(6))),
    "array to managed": Case(lambda: np.arange(6.0), from_dlpack),
    "scalar": Case(lambda: np.float32(4), from_dlpack, values=4.0),
    "counts": Case(object, lambda _: len(dlbridge.stats().by_target), values=6),
    "array to tensor": Case(lambda: np.arange(6.0), to_torch, torch=True),
    "array cast to tensor": Case(
        lambda: np.arange(6.0), asking(to_torch, dtype="int32"), torch=True
    ),
    "reversed array to tensor": Case(
        lambda: np.arange(6.0)[::-1], to_torch, values=(5, 4, 3, 2, 1, 0), torch=True
    ),
    "tensor to array": Case(tensor, to_numpy, torch=True),
    "tensor of a producer to array": Case(borrowing_tensor, to_numpy, torch=True),
    "tensor in a graph": Case(in_graph, to_numpy, torch=True),
    "tensor to managed": Case(tensor, from_dlpack, torch=True),
    "tensor copied": Case(tensor, asking(to_torch, copy=True), torch=True),
    "tensor to capsule": Case(tensor, dlbridge.capsule, torch=True),
    "bfloat16 to array": Case(bf16, to_numpy, torch=True),
    "conjugated": Case(conjugated, to_numpy, torch=True),
    "sparse": Case(
        lambda: tensor().to_sparse(),
        asking(to_numpy, policy=dlbridge.host.replace(layout="densify")),
        torch=True,
    ),
    "sparse by its parts": Case(
        lambda: tensor().to_sparse(),
        lambda x: dlbridge.to(x, "scipy").data,
        values=(1, 2, 3, 4, 5),
        torch=True,
    ),
    # capsules, tables, producers
    "capsule": Case(lambda: make_f32()[0], to_numpy),
    "legacy capsule": Case(lambda: make_f32(versioned=False)[0], from_dlpack),
    "legacy capsule out": Case(lambda: np.arange(6.0), asking(dlbridge.capsule, max_version=None)),
    "capsule out": Case(lambda: np.arange(6.0), dlbridge.capsule),
    "producer": Case(producer, to_numpy),
    "producer to tensor": Case(producer, to_torch, torch=True),
    "bare producer": Case(lambda: producer(Bare), from_dlpack),
    "table": Case(tabled, from_dlpack),
    "older table": Case(lambda: tabled("newer"), to_numpy),
    # interfaces and buffers
    "array interface": Case(Interface, to_numpy),
    "array interface over a buffer": Case(DataInterface, to_numpy),
    "buffer": Case(lambda: array.array("d", range(6)), to_numpy),
    "bytes": Case(lambda: bytes(range(6)), from_dlpack),
    # no array yet
    "lazy array": Case(lambda: lazy(Lazy), to_numpy),
    "lazy array to tensor": Case(lambda: lazy(Old), to_torch, torch=True),
    "array that is not announced": Case(lambda: lazy(Silent), from_dlpack),
    "lazy texts": Case(lambda: lazy(Lazy, np.array(["a"])), to_numpy, values=("a",)),
    "lazy array refused": Case(
        lambda: lazy(Lazy), asking(to_numpy, copy=False), refused="no array yet"
    ),
    # ManagedTensor
    "managed to array": Case(lambda: from_dlpack(np.arange(6.0)), to_numpy),
    "managed exported": Case(
        lambda: from_dlpack(np.arange(6.0)), methodcaller("__dlpack__", max_version=(1, 3))
    ),
    "managed exported legacy": Case(
        lambda: from_dlpack(np.arange(6.0)), methodcaller("__dlpack__")
    ),
    "managed copied out": Case(
        lambda: from_dlpack(np.arange(6.0)),
        methodcaller("__dlpack__", max_version=(1, 3), copy=True),
    ),
    "managed to bytes": Case(
        lambda: from_dlpack(np.arange(6.0)), bytes, values=np.arange(6.0).tobytes()
    ),
    "managed to buffer": Case(lambda: from_dlpack(np.arange(6.0)), memoryview),
    "managed by __array__": Case(lambda: from_dlpack(np.arange(6.0)), methodcaller("__array__")),
    "its attributes": Case(
        lambda: from_dlpack(np.arange(6.0)),
        lambda x: (x.shape, x.strides, x.device, str(x.dtype), x.nbytes, repr(x)),
        values=((6,), (1,), (1, 0), "float64", 48, "<dlbridge.ManagedTensor float64 (6,) on cpu>"),
    ),
    "slot from_py_object": Case(
        lambda: from_dlpack(np.arange(6.0)),
        lambda x: swallow(OURS.from_py_object(x))["held"].fields()["shape"],
        values=(6,),
    ),
    "slot to_py_object": Case(
        lambda: make_f32()[0], lambda x: swallow(OURS.to_py_object(x))["object"]
    ),
    "slot borrow": Case(
        lambda: from_dlpack(np.arange(6.0)),
        lambda x: swallow(OURS.borrow(x))["fields"]["shape"],
        values=(6,),
    ),
    "slot allocator": Case(object, lambda _: allocated(OURS.allocate([2, 3])), values=2),
    # trees, consumers, explain
    "tree": Case(
        lambda: {"a": [producer(), 3], "b": np.arange(6.0)},
        to_numpy,
        values={"a": [(0, 1, 2, 3, 4, 5), 3], "b": (0, 1, 2, 3, 4, 5)},
    ),
    "tree to tensors": Case(
        lambda: {"a": [producer(), 3]}, to_torch, values={"a": [(0, 1, 2, 3, 4, 5), 3]}, torch=True
    ),
    "registered consumer": Case(lambda: np.arange(6.0), lambda x: dlbridge.to(x, registered())),
    "explained": Case(producer, lambda x: dlbridge.explain(x, "numpy").view, values=True),
    "in a block": Case(lambda: np.arange(6.0), lambda x: in_block(x)),
    # refusals
    "no array": Case(object, to_numpy, refused="expected an array"),
    "used capsule": Case(lambda: used(make_f32()[0]), to_numpy, refused="was used already"),
    "capsule of another kind": Case(
        lambda: probe.named_capsule("something"), to_numpy, refused="holds no DLPack tensor"
    ),
    "malformed": Case(lambda: make_f32(null_data=True)[0], to_numpy, refused="NULL"),
    "malformed legacy": Case(
        lambda: make_f32(versioned=False, null_shape=True)[0], from_dlpack, refused="NULL"
    ),
    "newer version": Case(lambda: make_f32(version=(2, 0))[0], to_numpy, refused="major version"),
    "copy refused": Case(
        lambda: np.arange(6.0), asking(to_numpy, dtype="f4", copy=False), refused="copy"
    ),
    "integer that does not fit": Case(
        lambda: np.array([1, 300]), asking(to_numpy, dtype="u1"), refused="x[1] is 300"
    ),
    "structured": Case(struct, from_dlpack, refused="fields"),
    "read-only to tensor": Case(
        torch_read_only, asking(to_torch, copy=False), refused="read-only", torch=True
    ),
    "graph refused": Case(
        in_graph, asking(to_numpy, policy="strict"), refused="requires grad", torch=True
    ),
    "sparse refused": Case(lambda: tensor().to_sparse(), to_numpy, refused="sparse", torch=True),
    "silent table": Case(lambda: tabled("silent"), to_numpy, refused="without saying why"),
    "empty table": Case(lambda: tabled("empty"), to_numpy, refused="no tensor"),
    "incomplete table": Case(lambda: tabled("no_from_py"), to_numpy, refused="incomplete"),
    "bad tree": Case(lambda: [[object()]], to_numpy, refused="none in this list"),
    "tree with a refusal": Case(
        lambda: {"a": [producer(null_data=True)]}, to_numpy, refused="NULL"
    ),
    "masked": Case(
        lambda: np.ma.masked_array([1.0, 2.0], [True, False]), to_numpy, refused="with a mask"
    ),
    "to shared memory": Case(lambda: np.arange(6.0), shared),
    "tensor to shared memory": Case(lambda: tensor(), shared, torch=True),
    "through a message": Case(lambda: np.arange(6.0), passed),
    "forbidden in a block": Case(
        lambda: np.arange(6.0), lambda x: in_block(x, dtype="f4"), refused="copies"
    ),
}


# Memory ends only where C code asks for it: these run Python code of the test's own.
WITHOUT_MEMORY = {name for name, case in CASES.items() if isinstance(case.cross, FunctionType)}
NOT_OURS = "Failed to allocate a "  # torch 2.15 says so by a RuntimeError


def used(capsule: Any) -> Any:
    from_dlpack(capsule)
    return capsule


def in_block(x: Any, **keywords: Any) -> Any:
    with dlbridge.no_copies():
        return to_numpy(x, **keywords)


def expect(case: Case, fired: str | None, result: Any, error: BaseException | None) -> str:
    """What is wrong with what came of a crossing in which a call failed, or nothing."""
    if error is not None:
        if fired is not None and (
            isinstance(error, MemoryError) or str(error).startswith(NOT_OURS)
        ):
            return ""
        if case.refused is None or case.refused not in str(error):
            return f"raised {type(error).__name__}: {error}"
        return ""
    if case.refused is not None:
        return "was not refused"
    values = values_of(result)
    return "" if values == case.values else f"gave {values}"
