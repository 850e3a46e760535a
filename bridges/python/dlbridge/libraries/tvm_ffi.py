"""TVM's FFI."""

from dlbridge import Capabilities, Library
from dlbridge.libraries import address_by_dlpack

ROWS = (
    Library(
        name="tvm_ffi",
        modules=("tvm_ffi", "tvm"),
        object="tvm_ffi.Tensor",
        legacy_writable=True,
        capabilities=Capabilities(devices=None),
        take="tvm_ffi:from_dlpack",
        address=address_by_dlpack,
        quirks={
            "always": "tvm_ffi takes exchange tables first, and checks neither graph nor bits of a "
            "torch tensor there; dlbridge does before",
            "read_only": "tvm_ffi loses the read-only flag",
        },
    ),
)
