"""dlbridge: tensors across libraries, through DLPack, under a policy.

>>> import dlbridge
>>> array = dlbridge.to_numpy(tensor)      # a view wherever that is right
>>> tensor = dlbridge.to_torch(array)
>>> print(dlbridge.explain(tensor, "numpy"))
"""

import importlib
from typing import TYPE_CHECKING, Any

from dlbridge import _compiler
from dlbridge._core import (
    ManagedTensor,
    __version__,
    capsule,
    from_dlpack,
    pool_limit,
    release_pool,
    to_numpy,
    to_torch,
)
from dlbridge._errors import ConversionRefused
from dlbridge._plan import Plan
from dlbridge._policy import Policy, host, snapshot, strict, zero_copy
from dlbridge._registry import Capabilities, Library, register
from dlbridge._targets import SilentCopyWarning, explain, to
from dlbridge.ledger import no_copies, policy, stats

if TYPE_CHECKING:
    from dlbridge._arrival import PendingArray, pinned_empty
    from dlbridge._core import counting_deleters as counting_deleters
    from dlbridge.functions.agnostic import accepts, as_namespace, returns_like
    from dlbridge.functions.array_function import NotDifferentiable
    from dlbridge.functions.borrow import borrow
    from dlbridge.functions.numpy_function import numpy_function
    from dlbridge.functions.torch_function import gradcheck, torch_function
    from dlbridge.ledger.recording import Ledger, trace
    from dlbridge.processes.pickling import Pickler, dumps, loads
    from dlbridge.processes.sharing import Shared, recv, send, share, shared_empty

# What a crossing does not need is imported when it is first asked for; some of it imports torch.
_LATER = {
    "Ledger": "ledger.recording",
    "NotDifferentiable": "functions.array_function",
    "PendingArray": "_arrival",
    "Pickler": "processes.pickling",
    "Shared": "processes.sharing",
    "accepts": "functions.agnostic",
    "as_namespace": "functions.agnostic",
    "borrow": "functions.borrow",
    "counting_deleters": "_core",  # what the conformance kit needs of C
    "dumps": "processes.pickling",
    "gradcheck": "functions.torch_function",
    "loads": "processes.pickling",
    "numpy_function": "functions.numpy_function",
    "pinned_empty": "_arrival",
    "recv": "processes.sharing",
    "returns_like": "functions.agnostic",
    "send": "processes.sharing",
    "share": "processes.sharing",
    "shared_empty": "processes.sharing",
    "torch_function": "functions.torch_function",
    "trace": "ledger.recording",
}

__all__ = [
    "Capabilities",
    "ConversionRefused",
    "Ledger",
    "Library",
    "ManagedTensor",
    "NotDifferentiable",
    "PendingArray",
    "Pickler",
    "Plan",
    "Policy",
    "Shared",
    "SilentCopyWarning",
    "__version__",
    "accepts",
    "as_namespace",
    "borrow",
    "capsule",
    "dumps",
    "explain",
    "from_dlpack",
    "gradcheck",
    "host",
    "loads",
    "no_copies",
    "numpy_function",
    "pinned_empty",
    "policy",
    "pool_limit",
    "recv",
    "register",
    "release_pool",
    "returns_like",
    "send",
    "share",
    "shared_empty",
    "snapshot",
    "stats",
    "strict",
    "to",
    "to_numpy",
    "to_torch",
    "torch_function",
    "trace",
    "zero_copy",
]

# The public names belong to the package, wherever they are written.
for _class in (Capabilities, ConversionRefused, Library, Plan, Policy, SilentCopyWarning):
    _class.__module__ = __name__
del _class

_compiler.watch()


def __getattr__(name: str) -> Any:
    if name == "engines":
        return importlib.import_module(f"{__name__}.engines")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
