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
    # The tensor says whether it is in a graph, whatever mode its values are asked for in.
    with unwatched(), torch.inference_mode(x.is_inference()):
        if layout == "coo":
            values, indices = x._values(), (x._indices(),)
        elif layout in ("csr", "bsr"):
            values, indices = x.values(), (x.crow_indices(), x.col_indices())
        else:
            values, indices = x.values(), (x.ccol_indices(), x.row_indices())
        values = values.detach().requires_grad_(x.requires_grad)
    return Parts(layout, tuple(x.shape), (values, *indices), layout == "coo" and x.is_coalesced())


def _together(parts: Parts) -> Any:
    import torch

    # Before 2.9 torch minds the strides of what has no elements.
    values, *indices = (x if x.numel() else x.new_empty(x.shape) for x in parts.arrays)
    layout, aten = getattr(torch, f"sparse_{parts.layout}"), torch.ops.aten
    # Not by sparse_coo_tensor(check_invariants=True) and its like: they set a flag of the process
    # for their time, which two threads leave on, or off for one another.
    given: Any = {"dtype": values.dtype, "device": values.device, "layout": layout}
    if parts.layout == "coo":
        aten._validate_sparse_coo_tensor_args(*indices, values, parts.shape, parts.canonical)
        given["is_coalesced"] = parts.canonical
        return aten._sparse_coo_tensor_unsafe(*indices, values, parts.shape, **given)
    aten._validate_sparse_compressed_tensor_args(*indices, values, parts.shape, layout)
    return aten._sparse_compressed_tensor_unsafe(*indices, values, parts.shape, **given)


ROWS = (
    Library(
        name="torch",
        object="torch.Tensor",
        parts=_parts,
        layouts=dict.fromkeys(("coo", "csr", "csc", "bsr", "bsc"), _together),
        bridge="torch",
    ),
)
