"""What test_layout.py reads out of sources: C++ without a compiler, Python by its own parser."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CXX = {".h", ".hpp", ".cpp", ".cu", ".cuh"}


def files(folders: Iterable[str], suffixes: set[str]) -> list[Path]:
    """Files of the project, as paths from its root."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return sorted(path.relative_to(ROOT) for path in found if path.suffix in suffixes)


@cache
def text_of(path: Path) -> str:
    return (ROOT / path).read_text()


def code_of(text: str) -> str:
    """The text with comments, strings and directives blanked, each line at its place."""
    pattern = (
        r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'|^[ \t]*#(?:\\\n|[^\n])*"
    )
    return re.sub(
        pattern, lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL | re.MULTILINE
    )


def closing(code: str, opening: int) -> int:
    """Where the brace or parenthesis at ``opening`` is closed, or the end of the code."""
    depth = 0
    for place in range(opening, len(code)):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(code[place], 0)
        if depth == 0:
            return place
    return len(code)


def line_of(code: str, place: int) -> int:
    return code.count("\n", 0, place) + 1


# --- what C++ declares --------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """What stands in a namespace or a class: ``body`` is a function's, or empty."""

    place: int
    head: str
    body: str
    in_class: bool


def is_function(head: str) -> bool:
    """Whether a brace behind this opens the body of a function, not an initialiser."""
    outside = re.sub(r"\boperator\s*[^\s\w(]+", "named", head)
    while (shorter := re.sub(r"\([^()]*\)", "", outside)) != outside:
        outside = shorter  # the parameters may have defaults
    return "(" in head and "=" not in outside


def declarations(code: str) -> Iterator[Declared]:
    """Those of all namespaces and classes, in their order; bodies are not looked into."""
    start = at = 0
    in_class = [False]
    while at < len(code):
        head = code[start:at]
        if code[at] == "{":
            end = closing(code, at)
            scope = re.search(r"\b(namespace|class|struct|union|extern)\b", head)
            if is_function(head):
                yield Declared(start, head, code[at : end + 1], in_class[-1])
                start = end + 1
            elif scope and "=" not in head:
                in_class.append(scope[1] in ("class", "struct", "union"))
                start, end = at + 1, at
            at = end
        elif code[at] == "(":
            at = closing(code, at)
        elif code[at] in ";}":
            yield Declared(start, head, "", in_class[-1])
            start = at + 1
            if code[at] == "}" and len(in_class) > 1:
                in_class.pop()
        at += 1


def declared_elsewhere(code: str) -> list[str]:
    """Functions that a header declares and does not define."""
    all_of_it = list(declarations(code))
    defined = {
        name for each in all_of_it if each.body for name in re.findall(r"(\w+)\s*\(", each.head)
    }
    names = []
    for each in all_of_it:
        head = re.sub(r"\[\[.*?\]\]|\b(public|private|protected)\s*:", " ", each.head).strip()
        while (shorter := re.sub(r"<[^<>]*>", "", head)) != head:
            head = shorter
        found = re.match(r"[^=(]*?(\w+|operator\s*\S+)\s*\((?!\s*\*)", head)
        ends = re.search(r"=\s*(default|delete|0)$", head)
        if each.body or not found or ends or "{" in head:
            continue
        if re.match(r"(using|typedef|static_assert|friend|template|inline|constexpr)\b", head):
            continue
        if found[1] not in defined and not found[1].isupper():  # a macro's name says so
            names.append(found[1])
    return names


CALL = r"(?<![.>])\b(\w+)\s*\("
# But for those that fill in a field of what nobody else has yet.
PYTHON_CALL = r"\bchecked\s*\(|\b_?Py[A-Za-z]*_(?!\w*HEAD_INIT\b|SET_REFCNT\b)\w+\s*\("


def carried_out(code: str) -> str:
    """The code without the lambdas in it that nobody calls there."""
    at = 0
    while found := re.compile(r"\[[&=\w, ]*\]\s*(\([^()]*\))?[^(){};,]*\{").search(code, at):
        at, end = found.end(), closing(code, found.end() - 1)
        if not code[end + 1 :].lstrip().startswith("("):
            code = code[: found.start()] + " " * (end + 1 - found.start()) + code[end + 1 :]
    return code


def that_touch_python(code: str) -> set[str]:
    """The functions of a file that call Python's, by themselves or by one another."""
    bodies: dict[str, str] = {}
    for each in declarations(code):
        if each.body and (name := re.search(r"(\w+)\s*\(", each.head)):
            bodies[name[1]] = bodies.get(name[1], "") + each.body
    calls = {name: set(re.findall(CALL, body)) for name, body in bodies.items()}
    touching = {name for name, body in bodies.items() if re.search(PYTHON_CALL, body)}
    while more := {name for name in calls.keys() - touching if calls[name] & touching}:
        touching |= more
    return touching


def initialisers(code: str) -> Iterator[tuple[int, str]]:
    """What static variables are made of: those of functions, and all of namespaces."""
    for found in re.finditer(r"\bstatic\b", code):
        at = found.end()
        while at < len(code) and code[at] != ";":
            if code[at] == "{" and is_function(code[found.end() : at]):
                break
            at = closing(code, at) + 1 if code[at] in "({[" else at + 1
        if code[at : at + 1] == ";":
            yield found.start(), code[found.end() : at]
    for each in declarations(code):
        if not each.body and not each.in_class and "static" not in each.head:
            yield each.place + len(each.head) - len(each.head.lstrip()), each.head


def python_in_initialisers(text: str) -> list[int]:
    """The lines of static variables whose initialiser calls Python."""
    code = code_of(text)
    helpers = that_touch_python(code)
    found = set()
    for place, made_of in initialisers(code):
        called = carried_out(made_of)
        if re.search(PYTHON_CALL, called) or helpers & set(re.findall(CALL, called)):
            found.add(line_of(code, place))
    return sorted(found)


GIL = (
    r"\bWithoutGil\b|\bGivesBack\b|\bPy_(BEGIN|END)_ALLOW_THREADS\b"
    r"|\bPyEval_(SaveThread|RestoreThread)\b|\bPyGILState_(Ensure|Release)\b"
)


def gil_under_locks(text: str) -> list[int]:
    """The lines that take the GIL or let it go where a lock of C++ is held."""
    code = code_of(text)
    found = []
    locks = r"\bstd::(?:lock_guard|unique_lock|scoped_lock|shared_lock)\b[^;(){}]*?(\w+)\s*[({]"
    for lock in re.finditer(locks, code):
        depth, held, at = 0, True, lock.end(1)
        while at < len(code) and depth >= 0:
            depth += {"{": 1, "}": -1}.get(code[at], 0)
            if change := re.compile(rf"\b{lock[1]}\.(un)?lock\(\)").match(code, at):
                held = change[1] is None
            if held and re.compile(GIL).match(code, at):
                found.append(line_of(code, at))
            at += 1
    return found


def locked_statics(text: str) -> list[int]:
    """The lines where a static variable of a function is made by a call, and so under a lock."""
    code = code_of(text)
    made = r"(?m)^[ \t]+static (?!constinit|constexpr)[^;={(]*=[^;]*\("
    return [line_of(code, found.start()) for found in re.finditer(made, code)]


# --- what includes and imports what ---------------------------------------------------------------


def included(path: Path) -> list[str]:
    return re.findall(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', text_of(path), re.MULTILINE)


def resolved(path: Path, name: str, roots: list[Path]) -> Path | None:
    """The project's file that is meant, or nothing: the nearest of that name."""
    own = [path.parent, *(root for root in roots if path.is_relative_to(root.parent)), *roots]
    return next((root / name for root in own if (ROOT / root / name).is_file()), None)


def imports_of(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module, those in its functions too, but for what only types need."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            yield inner
        elif isinstance(inner, ast.If) and "TYPE_CHECKING" in ast.unparse(inner.test):
            yield from imports_of(ast.Module(inner.orelse, []))
        else:
            yield from imports_of(inner)


def module_of(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, package: Path, known: set[str]) -> set[str]:
    """The modules of the package that this one asks something of, sooner or later.

    A plain ``import dlbridge`` asks nothing of a package that is there before its modules are.
    """
    module = module_of(path, package)
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for statement in imports_of(ast.parse(text_of(path))):
        if isinstance(statement, ast.Import):
            found |= {each.name for each in statement.names if each.name != package.name}
        else:
            above = parents[: len(parents) + 1 - statement.level] if statement.level else []
            base = ".".join([*above, *filter(None, [statement.module])])
            for each in statement.names:
                inner = f"{base}.{each.name}"
                found.add(inner if inner in known else base)
    return (found & known) - {module}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups that reach each other, each in alphabetical order."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for each in graph.get(todo.pop(), set()) - seen:
                seen.add(each)
                todo.append(each)
        return seen

    reach = {each: reached(each) for each in graph}
    groups = {
        frozenset(other for other in reach[each] if each in reach.get(other, set()))
        for each in graph
        if each in reach[each]
    }
    return sorted(sorted(group) for group in groups)
