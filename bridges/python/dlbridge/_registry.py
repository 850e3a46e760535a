"""The registry of libraries: what each is, what it can take, and how to hand it over.

Every library but NumPy and torch, which have compiled bridges, is nothing more than a ``Library``
here, and ``register`` is open to all. What a row says is data: ``plan()`` alone decides.
"""

# Annotations are evaluated here: those of a NamedTuple that are texts take longer to import.

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

from dlbridge import _core
from dlbridge._errors import ConversionRefused

ENTRY_POINTS = "dlbridge.libraries"

# The file in dlbridge.libraries that has a library's row: by the library's name, and by the modules
# of its types. In the order in which libraries() lists the rows.
_FILES = {
    name: file
    for file, names in (
        ("numpy", ("numpy",)),
        ("torch", ("torch",)),
        ("own", ("dlbridge", "dlbridge.ManagedTensor", "process", "dlbridge.process")),
        ("jax", ("jax", "jaxlib")),
        ("tensorflow", ("tensorflow", "keras")),
        ("cupy", ("cupy",)),
        ("paddle", ("paddle",)),
        ("mlx", ("mlx",)),
        ("dpnp", ("dpnp", "dpctl")),
        ("pyarrow", ("pyarrow", "pyarrow.Array")),
        ("polars", ("polars",)),
        ("pandas", ("pandas",)),
        ("xarray", ("xarray",)),
        ("duckdb", ("duckdb",)),
        ("dask", ("dask",)),
        ("scipy", ("scipy", "scipy_coords")),
        ("warp", ("warp",)),
        ("onnxruntime", ("onnxruntime",)),
        ("tvm_ffi", ("tvm_ffi", "tvm")),
        ("cuda_core", ("cuda.core", "cuda")),
        ("max", ("max",)),
        ("drjit", ("drjit",)),
        ("array_api_strict", ("array_api_strict",)),
        ("buffers", ("memoryview", "array", "ctypes", "PIL")),
    )
    for name in names
}


# The fields and what each is where nothing is said: the core's table, which C++ reads too.
_FIELDS: dict[str, Any] = _core.capability_fields()


class Capabilities:
    """What a library can take. Immutable; a field that is not given has its default.

    ``result``: what comes out, for messages; ``Library.object`` by default. ``devices`` and
    ``dtypes`` are names ("cpu", "cuda"; "float32", "bfloat16"), None all that DLPack has. A tensor
    elsewhere, or of another type, is refused or copied before the library sees it. ``own_device``
    is where the library's objects are, if that is not the host: what lies on the host is handed to
    ``Library.take_host``, which copies it there; ``copies_to_device``: it can be asked to.

    ``strides``: "any", "non-negative" or "compact"; ``min_dimensions`` and ``max_dimensions``.
    ``reads_unaligned``: it reads elements at any address; others load them by their type, and get
    none at an address that is no multiple of its size. ``alignment``: bytes, a power of two, where
    the first element needs more than that. ``read_only``: "honours" (it keeps the promise),
    "unaware" (it would write, so the policy decides) or "never" (it must not get such memory).
    ``writable=False``: its own objects cannot be written to. ``takes_as_constant``: it computes as
    if nobody wrote to the memory any more, so the policy decides on memory that may be written to.
    ``guards_overlap``: it refuses by itself to write where elements share memory. ``copies=True``:
    it copies whatever it is given, so no view can be promised. ``carries_padding``: it keeps the
    flag of elements that are padded to bytes.
    """

    __slots__ = ("_given", "result")

    result: str
    _given: dict[str, Any]

    def __init__(self, *, result: str = "", **fields: Any) -> None:
        for name in fields:
            if name not in _FIELDS:
                raise TypeError(f"Capabilities have no field {name!r}; they have {_names()}")
        object.__setattr__(self, "result", result)
        object.__setattr__(self, "_given", fields)

    @property
    def fields(self) -> dict[str, Any]:
        """Every field but ``result``, by name."""
        return {**_FIELDS, **self._given}

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:
            return self._given.get(name, _FIELDS[name])
        raise AttributeError(f"Capabilities have no field {name!r}; they have {_names()}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("Capabilities cannot be changed; make new ones")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Capabilities):
            return NotImplemented
        return self.result == other.result and self.fields == other.fields

    def __hash__(self) -> int:
        # Not the values: a list may stand among them. What was given as the default says nothing.
        told = (name for name, value in self._given.items() if value != _FIELDS[name])
        return hash((self.result, *sorted(told)))

    def __repr__(self) -> str:
        shown = {"result": self.result, **self._given}
        return f"Capabilities({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(Capabilities, result=self.result, **self._given), ()


def _names() -> str:
    return ", ".join(("result", *_FIELDS))


_NONE: Mapping[str, str] = {}
_NO_LAYOUTS: Mapping[str, Any] = {}


class Parts(NamedTuple):
    """An array that is held in several: their ``layout``, and the ``shape`` of the whole.

    The first of ``arrays`` are its values. Behind them come, of "csr", "csc", "bsr" and "bsc", the
    pointers to the rows or columns and the indices in them; of "coo" the indices as one array of
    int64, which has a row for each dimension. ``canonical``: those are in order, and each is there
    once.
    """

    layout: str
    shape: tuple[int, ...]
    arrays: tuple[Any, ...]
    canonical: bool = False


class Library(NamedTuple):
    """One library, as a source of tensors and as a target.

    As a source: ``modules`` are the first parts of the module names of its types (``name`` by
    default), ``object`` is how messages call its objects. ``immutable``: nobody may write to their
    memory, though no flag says so. ``legacy_writable``: it means its legacy capsules to be written
    to. ``copies_out``: its export is a copy, so no view of its memory can be had. ``read(x)`` gives
    what is to be taken in x's place, for objects without a protocol, or raises; ``conditions(x)``
    names what DLPack cannot say of x ("in_graph", "masked"). ``fixes`` are the calls that take a
    condition away ("read_only": "x.copy()"); ``fix_for(x)`` is asked for the one that makes numbers
    of an x that holds texts, dates or nulls. ``refusal(x, error)`` says what the library's own
    error means where its export of x fails, or a target's where it does not put the parts of x
    together; or gives None: then the error is the caller's.
    ``parts(x)`` takes a sparse x apart, or gives None: it crosses by its ``Parts`` to a target that
    holds the same ones.

    As a target: ``capabilities``, or a function that gives them as they are now; ``take`` (a
    function, or "module:name") makes the library's object of what it is handed, which is one of
    ``handed``: a ``ManagedTensor``, a capsule ("versioned" or "legacy"), a NumPy array, or a
    memoryview. ``address(result)`` tells where the result's memory is, so that a view that was
    promised is checked. ``quirks`` say what the library would do by itself when a condition is met,
    or "always"; ``explain`` shows them. ``layouts`` has, by a layout's name, what makes the
    library's object of the ``Parts``, whose arrays are its own by then, and raises where they
    disagree.

    ``bridge`` is the compiled target of a library that has one.
    """

    name: str
    modules: tuple[str, ...] = ()
    object: str = ""
    immutable: bool = False
    legacy_writable: bool = False
    copies_out: bool = False
    read: Callable[[Any], Any] | None = None
    conditions: Callable[[Any], Iterable[str]] | None = None
    refusal: Callable[[Any, Exception], ConversionRefused | None] | None = None
    fix_for: Callable[[Any], str | None] | None = None
    fixes: Mapping[str, str] = _NONE
    parts: Callable[[Any], Parts | None] | None = None
    capabilities: Capabilities | Callable[[], Capabilities] | None = None
    take: Callable[[Any], Any] | str | None = None
    take_host: Callable[[Any], Any] | str | None = None
    handed: Literal["managed", "versioned", "legacy", "array", "memoryview"] = "managed"
    address: Callable[[Any], int] | None = None
    quirks: Mapping[str, str] = _NONE
    layouts: Mapping[str, Callable[[Parts], Any]] = _NO_LAYOUTS
    bridge: Any = None

    @property
    def is_target(self) -> bool:
        return self.capabilities is not None or self.bridge is not None


_FUNCTIONS = ("read", "conditions", "refusal", "fix_for", "parts", "take", "take_host", "address")
_HANDED = get_args(Library.__annotations__["handed"])

_libraries: dict[str, Library] = {}
_loaded: set[str] = set()  # files of dlbridge.libraries


def register(library: Library) -> None:
    """Makes a library known, or replaces what was known of it.

    From then on ``to(x, library.name)`` and ``explain`` know it as a target, and every function
    knows its objects as sources. A package can do so for its own library, without being imported
    first, by an entry point: group ``dlbridge.libraries``, the library's name, and a function that
    calls ``register``.
    """
    if not isinstance(library, Library):
        raise TypeError(f"register takes a dlbridge.Library, not {type(library).__name__}")
    if library.capabilities is not None and library.take is None:
        raise ValueError(f"the library {library.name!r} has capabilities but no take")
    for field in _FUNCTIONS:
        given = getattr(library, field)
        named = field.startswith("take") and isinstance(given, str)
        if not (given is None or callable(given) or named):
            raise TypeError(f"Library.{field} must be a function, not {type(given).__name__}")
    if library.handed not in _HANDED:
        raise ValueError(f"handed={library.handed!r}; use one of {', '.join(map(repr, _HANDED))}")
    for name in (library.name, *library.modules):
        _load_file(name)  # otherwise the row there would replace this one later
    _add(library)


def add_compiled(name: str, object: str, target: Any) -> None:
    """Registers a bridge in C++, whose objects ``_core`` knows by their type."""
    register(Library(name=name, object=object, bridge=target))


def _add(library: Library) -> None:
    if isinstance(library.capabilities, Capabilities):
        _target(library, library.capabilities)  # a mistake in it shows here, not at the first use
    _core.add_library(library)
    _libraries[library.name] = library
    _asked.clear()


def _load_file(name: str) -> bool:
    """Registers the rows of the file for that name, once; whether there is one."""
    file = _FILES.get(name)
    if file is None:
        return False
    if file not in _loaded:
        for library in importlib.import_module(f"dlbridge.libraries.{file}").ROWS:
            _add(library)
        _loaded.add(file)
    return True


@functools.cache
def _entry_points() -> dict[str, Callable[[], Any]]:
    """What loads each of the entry points, by name: found once, for a search takes milliseconds."""
    metadata = importlib.import_module("importlib.metadata")
    return {point.name: point.load for point in metadata.entry_points(group=ENTRY_POINTS)}


def look_for(name: str) -> None:
    """Registers the library of that name, or whose types are in that module, if it can be found."""
    if _load_file(name) or name in _libraries or name in ("builtins", "__main__"):
        return
    load = _entry_points().get(name)
    if load is not None:
        load()()


def library_named(name: str) -> Library | None:
    """The registered library: by its name, or by a module that it says is its own."""
    if name not in _libraries:
        look_for(name)
    found = _libraries.get(name)
    return found or next((row for row in _libraries.values() if name in row.modules), None)


def libraries() -> tuple[Library, ...]:
    """Every library that is known, entry points included."""
    for name in (*_FILES, *_entry_points()):
        look_for(name)
    ours = [_libraries[name] for name in _FILES if name in _libraries]
    return (*ours, *(row for name, row in _libraries.items() if name not in _FILES))


# What library_for() gave, until another library is registered. No functools.cache: torch's compiler
# warns of those.
_asked: dict[str | ModuleType, Library] = {}


def library_for(target: str | ModuleType) -> Library:
    """The library that ``to`` takes its target for."""
    try:
        return _asked[target]
    except (KeyError, TypeError):  # not asked for yet, or nothing that could be
        library = _asked[target] = _library_for(target)
        return library


def _library_for(target: str | ModuleType) -> Library:
    if not isinstance(target, (str, ModuleType)):
        raise TypeError(
            f"target must be the name of a library or its module, not {type(target).__name__}"
        ) from None
    if isinstance(target, ModuleType):
        full = target.__name__
        library = library_named(full) or library_named(full.partition(".")[0])
        if library is None and hasattr(target, "from_dlpack"):
            # Nobody registered it: it gets what carries the read-only flag.
            library = Library(
                name=full,
                capabilities=Capabilities(
                    devices=None, strides="non-negative", read_only="honours"
                ),
                take=lambda managed: target.from_dlpack(managed),
            )
    else:
        full = target
        library = library_named(full)
    if library is None or not library.is_target:
        known = ", ".join(repr(each.name) for each in libraries() if each.is_target)
        raise ValueError(
            f"target {full!r} is unknown; use one of {known}, a module with a from_dlpack(), or "
            "dlbridge.register() to add it"
        ) from None
    return library


# The last of each row, by identity: what it can take may be another table now than it was.
_targets: dict[int, tuple[Library, Capabilities, Any]] = {}


def _target(library: Library, capabilities: Capabilities) -> Any:
    known = _targets.get(id(library))
    if known is not None and known[0] is library and known[1] is capabilities:
        return known[2]
    result = capabilities.result or library.object or library.name
    target = _core.new_target(library, result, capabilities.fields)
    _targets[id(library)] = (library, capabilities, target)
    return target


def capabilities_of(library: Library) -> Capabilities:
    """What the library can take now."""
    given = library.capabilities
    assert given is not None
    return given if isinstance(given, Capabilities) else given()


def target_of(library: Library) -> Any:
    """The compiled form of the library as a target, with what it can take now."""
    if library.bridge is not None:
        return library.bridge
    return _target(library, capabilities_of(library))


@functools.cache
def function_of(take: Callable[[Any], Any] | str) -> Callable[[Any], Any]:
    """The function, or what "module:name" names, imported now."""
    if not isinstance(take, str):
        return take
    function: Callable[[Any], Any] = importlib.import_module("pkgutil").resolve_name(take)
    return function
