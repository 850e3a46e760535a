"""What stats() returns: imported when it is first asked for."""

from __future__ import annotations

from typing import NamedTuple


class Tally(NamedTuple):
    views: int
    copies: int
    bytes_copied: int


class Stats(NamedTuple):
    """What crossed since dlbridge was imported, in all threads; what is ``alive`` is so now."""

    crossings: int
    views: int
    copies: int
    refusals: int
    bytes_copied: int
    by_target: dict[str, Tally]
    alive: int  # managed tensors: each is a view that somebody holds, or a copy
    torch_road: str  # "linked", "portable" with the reason, or "" before a tensor of torch came by
    # By type of device, once one was met: how many its runtime reaches, or why there is no runtime.
    runtimes: dict[str, str]
