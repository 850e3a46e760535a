"""The Policy: what a caller allows a conversion to do."""

from __future__ import annotations

from typing import Any

from dlbridge._core import policy_fields

# Fields, values and the order of both are the core's: lib/include/dlbridge/policy.hpp.
_FIELDS: dict[str, tuple[Any, ...]] = policy_fields() | {"copy": (None, False, True)}


def _code_of(name: str, value: Any) -> int:
    for code, each in enumerate(_FIELDS[name]):
        if value is each or (isinstance(each, str) and value == each):  # 0 is no False
            return code
    listed = ", ".join(map(repr, _FIELDS[name]))
    raise ValueError(f"{name}={value!r} is no rule; use one of {listed}")


class Policy:
    """What a conversion may do: detach, resolve, copy, leave the device. Immutable.

    The default of every field is that of the preset ``host``. See the policy table in the manual
    for what each value means.
    """

    __slots__ = ("_code", "_values")

    # Read by the C++ core: four bits for each field's value, in order.
    _code: int
    _values: tuple[Any, ...]

    def __init__(
        self,
        *,
        grad: str = "detach",
        bits: str = "resolve",
        device: str = "copy",
        layout: str = "refuse",
        dtype: str = "ml_dtypes",
        readonly: str = "copy",
        mutable: str = "alias",
        overlap: str = "readonly",
        copy: bool | None = None,
    ) -> None:
        values = (grad, bits, device, layout, dtype, readonly, mutable, overlap, copy)
        code = 0
        for place, (name, value) in enumerate(zip(_FIELDS, values, strict=True)):
            code |= _code_of(name, value) << (4 * place)
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_code", code)

    def replace(self, **fields: Any) -> Policy:
        """This policy with other values in some fields."""
        return Policy(**{**self._asdict(), **fields})

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(_FIELDS, self._values, strict=True))

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:
            return self._asdict()[name]
        raise AttributeError(f"a Policy has no field {name!r}; it has {', '.join(_FIELDS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Policy cannot be changed; use policy.replace({name}={value!r})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Policy cannot be changed")

    def __eq__(self, other: object) -> bool:
        return self._code == other._code if isinstance(other, Policy) else NotImplemented

    def __hash__(self) -> int:
        return hash((Policy, self._code))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"Policy({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_fields, (self._asdict(),)


def _from_fields(fields: dict[str, Any]) -> Policy:
    return Policy(**fields)


host = Policy()
zero_copy = host.replace(copy=False)
snapshot = host.replace(copy=True)
strict = host.replace(**dict.fromkeys(_FIELDS, "refuse") | {"overlap": "readonly", "copy": False})

PRESETS = {"host": host, "strict": strict, "zero_copy": zero_copy, "snapshot": snapshot}
