"""dlbridge: tensors across libraries, through DLPack, under a policy.

>>> import dlbridge
>>> array = dlbridge.to_numpy(tensor)      # a view wherever that is right
>>> tensor = dlbridge.to_torch(array)
>>> print(dlbridge.explain(tensor, "numpy"))
"""

import sys as _sys
from types import ModuleType as _ModuleType

try:  # before what imports NumPy: it says what it cannot do
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
    from dlbridge._core import bring_back_first_package as _bring_back_first_package

    _bring_back_first_package()  # before its other parts are imported
except ModuleNotFoundError as missing:
    if missing.name == "dlbridge._core":
        missing.msg = (
            f"no dlbridge._core that this Python can load lies in {', '.join(__path__)} (it is "
            "built for one version of Python, and loaded from no archive); pip install dlbridge "
            "with this Python"
        )
    raise
from dlbridge import _compiler
from dlbridge import _core as _core
from dlbridge import engines as engines
from dlbridge._arrival import PendingArray, pinned_empty
from dlbridge._core import (
    count_write as count_write,  # for borrow()
)
from dlbridge._core import (
    counting_deleters as counting_deleters,  # for the conformance kit
)
from dlbridge._errors import ConversionRefused, NotDifferentiable
from dlbridge._package import cmake_dir, get_include
from dlbridge._plan import Plan
from dlbridge._policy import Policy, host, snapshot, strict, zero_copy
from dlbridge._registry import Capabilities, Library, Parts, register
from dlbridge._targets import SilentCopyWarning, explain, to
from dlbridge.functions.public import (
    accepts,
    as_namespace,
    borrow,
    gradcheck,
    numpy_function,
    returns_like,
    torch_function,
)
from dlbridge.ledger import no_copies, policy, stats
from dlbridge.ledger.recording import Ledger, trace
from dlbridge.processes.pickling import Pickler, dumps, loads
from dlbridge.processes.shared import Shared
from dlbridge.processes.sharing import recv, send, share, shared_empty

# No name is made when it is first asked for, by a __getattr__ of the module: CPython from 3.11 on
# does not specialise the look-up of any name of a module that has one. What takes long to import is
# imported where it is used.

__all__ = [
    "Capabilities",
    "ConversionRefused",
    "Ledger",
    "Library",
    "ManagedTensor",
    "NotDifferentiable",
    "Parts",
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
    "cmake_dir",
    "dumps",
    "explain",
    "from_dlpack",
    "get_include",
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
for _class in (
    Capabilities,
    ConversionRefused,
    Ledger,
    Library,
    NotDifferentiable,
    Parts,
    Plan,
    Policy,
    SilentCopyWarning,
):
    _class.__module__ = __name__
del _class


def _come_back(package: _ModuleType) -> None:
    """Puts a package that was taken out of sys.modules there again, with its parts."""
    _sys.modules[package.__name__] = package
    for part in list(vars(package).values()):  # other threads may import some
        if isinstance(part, _ModuleType) and part.__name__.startswith(f"{package.__name__}."):
            _come_back(part)


_compiler.watch()
