"""torch, which has a compiled bridge. Its sparse tensors cross by their parts."""

from typing import Any

from dlbridge import Library, Parts


def _parts(x: Any) -> Parts | None:
    import torch

    from dlbridge._torch.tensors import unwatched

    layout = str(x.layout).removeprefix("torch.sparse_")
    if not x.dim() or x.dense_dim() or (layout != "coo" and x.dim() > 2):
        return None  # a number alone, dense dimensions and batches are torch's
    indices: tuple[Any, ...]
    # In a graph is the tensor, in whichever mode its values are asked for.
    with unwatched(), torch.inference_mode(x.is_inference()):
        if layout == "coo":
            values, indices = x._values(), (x._indices(),)
        elif layout in ("csr", "bsr"):
            values, indices = x.values(), (x.crow_indices(), x.col_indices())
        else:
            values, indices = x.values(), (x.ccol_indices(), x.row_indices())
        values = values.detach().requires_grad_(x.requires_grad)
    return Parts(layout, tuple(x.shape), (values, *indices))


def _together(parts: Parts) -> Any:
    import torch

    values, *indices = parts.arrays
    make = getattr(torch, f"sparse_{parts.layout}_tensor")
    # A default device is no word about where these are.
    return make(*indices, values, parts.shape, device=values.device, check_invariants=True)


ROWS = (
    Library(
        name="torch",
        object="torch.Tensor",
        parts=_parts,
        layouts=dict.fromkeys(("coo", "csr", "csc", "bsr", "bsc"), _together),
        bridge="torch",
    ),
)
