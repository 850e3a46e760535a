"""What values say of themselves in a notebook: imported where one asks."""

from html import escape

from dlbridge._core import ManagedTensor


def page_of(x: object) -> str:
    """What print() shows, as HTML."""
    return f"<pre>{escape(str(x))}</pre>"


def managed_tensor_page(x: ManagedTensor) -> str:
    access = "read-only" if x.readonly else "writable"
    return page_of(
        f"dlbridge.ManagedTensor {x.dtype} {x.shape} on {x.device}: {access}, {x.nbytes:,} bytes\n"
        f"  strides: {x.strides}"
    )
