"""Law 8: nothing of another library is replaced, whatever is imported and converted here."""

from __future__ import annotations

import pytest
from dlb_support import run_child

SCRIPT = """
import ctypes
import numpy as np
import torch

# The words of a PyTypeObject (CPython 3.8 and later) that are functions or tables of functions:
# tp_dealloc, tp_getattr .. tp_as_buffer, tp_doc .. tp_richcompare, tp_iter .. tp_getset,
# tp_descr_get and _set, tp_init .. tp_is_gc, tp_del, tp_finalize, tp_vectorcall.
SLOTS = [6, *range(8, 21), *range(22, 26), *range(27, 32), 34, 35, *range(37, 42), 47, 49, 50]
TYPES = [torch._C.TensorBase, torch._C.StorageBase, torch.Tensor, torch.UntypedStorage,
         torch.nn.Parameter, np.ndarray, np.generic, np.dtype, np.ufunc]
OWNERS = [torch, torch._C, torch.utils.dlpack, torch.nn.Module, np, *TYPES]

def slots():
    read = (ctypes.c_size_t * 51).from_address
    return {(kind, slot): read(id(kind))[slot] for kind in TYPES for slot in SLOTS}

def attributes():
    return {(owner, name): value for owner in OWNERS for name, value in vars(owner).items()
            if callable(value) or isinstance(value, (classmethod, staticmethod, property))}

def check(when):
    changed = [key for key, value in slots().items() if value != slots_before[key]]
    now = attributes()
    changed += [key for key, value in attributes_before.items() if now.get(key) is not value]
    assert not changed, (when, changed)

slots_before, attributes_before = slots(), attributes()
import dlbridge
check("imported")
for road in ROADS:
    dlbridge._core.torch_road(road)
    tensor, array = torch.arange(6.0), np.arange(6.0)
    views = [dlbridge.to_numpy(tensor), dlbridge.to_torch(array), dlbridge.from_dlpack(tensor),
             dlbridge.capsule(array), dlbridge.to_numpy(tensor.clone().requires_grad_())]
    check(road)
    with dlbridge.borrow(tensor) as lent, dlbridge.trace():
        lent[0] = 1
        dlbridge.to_numpy({"a": [tensor]})
        check(road + ", in blocks")
    del views, lent, tensor, array
    check(road + ", in the end")
print("unchanged")
"""


@pytest.mark.parametrize("roads", [["linked", "portable"], ["portable"]], ids="+".join)
def test_no_slot_and_no_function_of_torch_or_numpy_is_replaced(roads: list[str]) -> None:
    assert run_child(f"ROADS = {roads!r}\n{SCRIPT}").endswith("unchanged\n")
