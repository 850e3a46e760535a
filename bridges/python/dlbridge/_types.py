"""The small values that a ManagedTensor's attributes are."""

from __future__ import annotations

from typing import NamedTuple

from dlbridge._core import device_name, dtype_name


class Device(NamedTuple):
    """DLPack's pair of a device type and an id: ``(1, 0)``, printed as ``cpu``."""

    type: int
    id: int

    def __str__(self) -> str:
        return device_name(*self)

    def __repr__(self) -> str:
        return f"Device({self.type}, {self.id})"


class DType(NamedTuple):
    """DLPack's triple of a type code, bits and lanes: ``(2, 32, 1)``, printed as ``float32``."""

    code: int
    bits: int
    lanes: int = 1

    @property
    def name(self) -> str:
        return dtype_name(*self)

    def __str__(self) -> str:
        return self.name
