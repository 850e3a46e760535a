"""The compiled part of dlbridge."""

from collections.abc import Callable
from typing import Any, Literal, SupportsIndex, TypeAlias, overload

import numpy as np
import torch
from typing_extensions import CapsuleType

from dlbridge._arrival import PendingArray
from dlbridge._plan import Plan
from dlbridge._policy import Policy
from dlbridge._registry import Library
from dlbridge._types import Device, DType
from dlbridge.ledger.counts import Stats

_Policy: TypeAlias = Policy | str | None
_Device: TypeAlias = str | tuple[int, int] | torch.device | None

__version__: str
dlbridge_c_api: CapsuleType  # the functions of dlbridge/dlbridge.h, for extensions

class ManagedTensor:
    """A tensor of no library: memory, shape, strides, type and device, owned through DLPack."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def device(self) -> Device: ...
    @property
    def readonly(self) -> bool: ...
    @property
    def data_ptr(self) -> int: ...
    @property
    def ndim(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    __dlpack_c_exchange_api__: CapsuleType
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]: ...
    def __bytes__(self) -> bytes: ...
    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Any: ...
    def _repr_html_(self) -> str: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@overload
def to_numpy(
    x: Any,
    /,
    *,
    policy: _Policy = None,
    dtype: Any = None,
    copy: bool | None = None,
    order: Literal["C"] | None = None,
    writable: bool | None = None,
    out: np.ndarray[Any, Any] | None = None,
    stream: Any = None,
    async_: Literal[False] = False,
) -> np.ndarray[Any, Any]: ...
@overload
def to_numpy(
    x: Any,
    /,
    *,
    policy: _Policy = None,
    dtype: Any = None,
    copy: bool | None = None,
    order: Literal["C"] | None = None,
    writable: bool | None = None,
    out: np.ndarray[Any, Any] | None = None,
    stream: Any = None,
    async_: Literal[True],
) -> PendingArray: ...
@overload
def to_numpy(
    x: Any,
    /,
    *,
    policy: _Policy = None,
    dtype: Any = None,
    copy: bool | None = None,
    order: Literal["C"] | None = None,
    writable: bool | None = None,
    out: np.ndarray[Any, Any] | None = None,
    stream: Any = None,
    async_: bool,
) -> np.ndarray[Any, Any] | PendingArray: ...
def to_torch(
    x: Any,
    /,
    *,
    policy: _Policy = None,
    dtype: Any = None,
    copy: bool | None = None,
    order: Literal["C"] | None = None,
    device: _Device = None,
    stream: Any = None,
) -> torch.Tensor: ...
def from_dlpack(
    x: Any, /, *, device: _Device = None, copy: bool | None = None
) -> ManagedTensor: ...
def capsule(
    x: Any, /, *, max_version: tuple[int, int] | None = (1, 3), policy: _Policy = None
) -> CapsuleType: ...

# A target is "numpy", "torch", "dlbridge", or a capsule of new_target().
def explain_plan(
    x: Any,
    target: Any,
    policy: _Policy,
    dtype: Any,
    copy: bool | None,
    device: _Device,
    order: str | None,
    writable: bool | None,
    stream: Any,
    leaf: bool,
    /,
) -> Plan: ...
def cross_to(
    x: Any,
    target: Any,
    policy: _Policy,
    dtype: Any,
    copy: bool | None,
    device: _Device,
    order: str | None,
    writable: bool | None,
    stream: Any,
    leaf: bool,
    /,
) -> Any: ...
def add_library(library: Library, /) -> None: ...
def new_target(library: Library, result: str, fields: dict[str, Any], /) -> CapsuleType: ...
def capability_fields() -> dict[str, Any]: ...
def library_of(x: object, /) -> str | None: ...  # by the bases of its class too

# Whether x has a door, so that it is no tree; whether it is an array, as buffers, capsules and
# NumPy's scalars are not.
def is_tensor(x: object, /) -> bool: ...
def is_array(x: object, /) -> bool: ...

# The tree with convert(leaf) for each tensor, None where it is no tree; the tree with
# function(leaf) for each leaf, in which a part where nothing changes stays itself.
def map_tree(tree: Any, convert: Callable[[Any], Any], /) -> Any: ...
def map_leaves(tree: Any, function: Callable[[Any], Any], /) -> Any: ...
def cross_arrays(
    tree: Any, target: Any, policy: _Policy, met: dict[int, tuple[Any, Any]], /
) -> Any: ...
def hold(managed: ManagedTensor, other: object, /) -> ManagedTensor: ...
def counting_deleters() -> tuple[int, int]: ...
def policy_fields() -> dict[str, tuple[str, ...]]: ...
def live_managed_tensors() -> int: ...
def pool_limit(bytes: int | None = None, /) -> int: ...
def release_pool() -> int: ...
def shared_target(mode: str, bytes: int, /) -> CapsuleType: ...
def shared_bytes(x: Any, mode: str, policy: _Policy, /) -> int: ...
def shared_allocate(shape: tuple[int, ...], dtype: Any, mode: str, /) -> ManagedTensor: ...
def managed_stream(type: int, id: int, /) -> int: ...
def tensor_over(
    owner: object,
    address: int,
    bytes: int,
    device: tuple[int, int],
    dtype: tuple[int, int, int],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    read_only: bool,
    /,
) -> ManagedTensor: ...

# A message's note has descriptors that it is about, whose numbers are their receiver's to close.
def pack_shared(
    tensors: list[ManagedTensor], mode: str, note: bytes, /
) -> tuple[bytes, list[int]]: ...
def unpack_shared(
    data: bytes, descriptors: list[int], /
) -> tuple[Any, list[ManagedTensor], bytes, list[int]]: ...
def send_shared(
    socket: int,
    tensors: list[ManagedTensor],
    mode: str,
    note: bytes,
    milliseconds: int | None,
    of_note: list[int] = ...,
    /,
) -> None: ...
def receive_shared(
    socket: int, milliseconds: int | None, /
) -> tuple[Any, list[ManagedTensor], bytes, list[int]] | None: ...
def count_blocks(blocks: int, ledgers: int, /) -> None: ...
def refused(plan: Plan, /) -> None: ...  # counts it, and tells the open blocks
def bring_back_first_package() -> None: ...  # to sys.modules, where this is another
def policy_of_block() -> Policy | None: ...  # of the innermost here
def caller() -> tuple[str, int, str]: ...  # file, line and function of the user's innermost frame
def stats(road: str, /) -> Stats: ...
def companion_agrees(companion: CapsuleType, tensors: tuple[Any, ...], /) -> bool: ...
def torch_road(name: str = ..., /) -> str: ...
def count_write(tensor: Any, /) -> bool: ...
def register_device_runtime(device_type: int, companion: CapsuleType | None, /) -> None: ...
def release_pinned_memory() -> None: ...
def pinned(dtype: Any, shape: tuple[int, ...], device_type: int = ..., /) -> ManagedTensor: ...
def device_type(device: _Device, /) -> int: ...
def device_name(type: int, id: int, /) -> str: ...
def dtype_name(code: int, bits: int, lanes: int, /) -> str: ...
def torch_vocabulary() -> dict[str, Any]: ...
def dtype_triple(name: str, /) -> tuple[int, int, int]: ...
def conditions() -> dict[str, int]: ...
