"""The small values that a ManagedTensor's attributes are."""

from __future__ import annotations

from dlbridge._core import device_name, dtype_name


class Device(tuple[int, int]):
    """DLPack's pair of a device type and an id: ``(1, 0)``, printed as ``cpu``."""

    __slots__ = ()

    def __new__(cls, type: int, id: int) -> Device:
        return super().__new__(cls, (type, id))

    @property
    def type(self) -> int:
        return self[0]

    @property
    def id(self) -> int:
        return self[1]

    def __getnewargs__(self) -> tuple[int, int]:
        return self[0], self[1]

    def __str__(self) -> str:
        return device_name(self[0], self[1])

    def __repr__(self) -> str:
        return f"Device({self[0]}, {self[1]})"


class DType(tuple[int, int, int]):
    """DLPack's triple of a type code, bits and lanes: ``(2, 32, 1)``, printed as ``float32``."""

    __slots__ = ()

    def __new__(cls, code: int, bits: int, lanes: int = 1) -> DType:
        return super().__new__(cls, (code, bits, lanes))

    @property
    def code(self) -> int:
        return self[0]

    @property
    def bits(self) -> int:
        return self[1]

    @property
    def lanes(self) -> int:
        return self[2]

    @property
    def name(self) -> str:
        return dtype_name(self[0], self[1], self[2])

    def __getnewargs__(self) -> tuple[int, int, int]:
        return self[0], self[1], self[2]

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"DType(code={self[0]}, bits={self[1]}, lanes={self[2]})"
