"""dlbridge: tensors across libraries, through DLPack, under a policy.

>>> import dlbridge
>>> array = dlbridge.to_numpy(tensor)      # a view wherever that is right
>>> tensor = dlbridge.to_torch(array)
>>> print(dlbridge.explain(tensor, "numpy"))
"""

from typing import TYPE_CHECKING, Any

from dlbridge._borrow import borrow
from dlbridge._core import ManagedTensor, __version__, capsule, from_dlpack, to_numpy, to_torch
from dlbridge._errors import ConversionRefused
from dlbridge._functions import (
    NotDifferentiable,
    gradcheck,
    numpy_function,
    torch_function,
)
from dlbridge._ledger import Ledger, no_copies, policy, stats, trace
from dlbridge._namespace import accepts, as_namespace, returns_like
from dlbridge._plan import Plan
from dlbridge._policy import Policy, host, snapshot, strict, zero_copy
from dlbridge._registry import Capabilities, Library, register
from dlbridge._show import show
from dlbridge._targets import SilentCopyWarning, explain, to

if TYPE_CHECKING:
    from dlbridge._loading import ArrayDataset, collate

__all__ = [
    "ArrayDataset",
    "Capabilities",
    "ConversionRefused",
    "Ledger",
    "Library",
    "ManagedTensor",
    "NotDifferentiable",
    "Plan",
    "Policy",
    "SilentCopyWarning",
    "__version__",
    "accepts",
    "as_namespace",
    "borrow",
    "capsule",
    "collate",
    "explain",
    "from_dlpack",
    "gradcheck",
    "host",
    "no_copies",
    "numpy_function",
    "policy",
    "register",
    "returns_like",
    "show",
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
for _class in (
    Capabilities,
    ConversionRefused,
    Ledger,
    Library,
    NotDifferentiable,
    Plan,
    Policy,
    SilentCopyWarning,
):
    _class.__module__ = __name__
del _class


def __getattr__(name: str) -> Any:
    if name not in ("ArrayDataset", "collate"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dlbridge import _loading  # only now, since it imports torch

    return getattr(_loading, name)
