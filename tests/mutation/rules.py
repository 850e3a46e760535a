"""What is taken out of the code: checks, conditions, references, releases, waits.

All mutants of a file are written into it together, each behind a switch, and one number says at run
time which of them is on: a build for all of them, and a test run for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from devices import NAMED


@dataclass(frozen=True)
class Mutant:
    """One change: the text from ``start`` to ``end`` becomes ``text``, with {on} for the switch."""

    file: str
    line: int
    rule: str
    start: int
    end: int
    before: str
    text: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.short()}"

    def without_line(self) -> str:
        """Its name for as long as its text stays, wherever the lines go."""
        return f"{self.file}: {self.rule}: {self.short()}"

    def short(self) -> str:
        return self.name or " ".join(self.before.split())[:100]

    @property
    def replaces(self) -> bool:
        """Whether nothing of what stood there is left, so that no other mutant can lie within."""
        return "{0}" not in self.text and "{1}" not in self.text


# What each rule does, as docs/testing.md says it.
RULES = {
    "check": "a check: what it refuses or turns away goes on",
    "branch": "a branch that is never taken",
    "branch always": "a branch that is always taken",
    "condition": "one of several conditions",
    "new reference": "a reference that is returned (`Py_NewRef`)",
    "borrowed": "a reference taken of what is borrowed",
    "reference": "another reference that is counted up",
    "ownership": "the passing on of a reference: it is given back as well",
    "release": "a reference, a tensor or memory that is given back",
    "error": "the handling of a failed call",
    "guard": "a scope that holds the GIL, an error or a lock",
    "wait": "a wait, or an order of streams",
    "device": "a rule of devices, by name",
}
# Statements that are left out, by what they are.
STATEMENTS = {
    "release": r"Py_X?DECREF\(|\w+(->|\.)give_back\(\)|managed->deleter\(|delete \w+;|PyMem_Free\(|"
    r"Py_CLEAR\(|detail::release\(|std::free\(|PyBuffer_Release\(|\w+->action\(",
    "reference": r"detail::retain\(|holder->users_\.fetch_add\(|c10::raw::intrusive_ptr::incref\(",
    "error": r"forget_error\(\);|PyErr_Clear\(\);|PyErr_Restore\(|checked\([^;]*\);",
    "wait": r"drain_releases\(\);|\w+(\[\w+\])?\.join\(\);|Py_AddPendingCall\(|"
    r"[\w.]*runtime_?(->|\.)(synchronise|wait)\(|(\w+(->|\.))+wait(_for_stream)?\(\);|wait\(\);|"
    r"(detail::)?order(_streams)?\(|(packaged->)?wait_for_\w+\(|settle_(pinned|device|location)\(|"
    r"tensor = until_done_on\(|leaving = until_done_on\(",
    "condition": r"(source\.traits\.|\w+\.)?conditions\.add(_if)?\(|conditions\.add(_if)?\(|"
    r"\w+\.mark_\w+\(\);|storage\.set_resizable\(|tensor\.drop_\w+\(\);|add\(|add_if\(",
}
GUARDS = r"(?m)^[ \t]+const (GivesBack|KeepError|Locked) (\w+)(\([^;{}]*\))?;"


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis at ``opening`` is closed, or -1."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return -1


def _code(text: str) -> str:
    """The text with comments, strings and preprocessor lines blanked, at the same places."""
    pattern = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'|^[ \t]*#[^\n]*"
    return re.sub(pattern, lambda found: " " * len(found[0]), text, flags=re.DOTALL | re.MULTILINE)


def _operands(code: str, start: int, end: int, operator: str) -> list[tuple[int, int]]:
    """Where the operands of ``operator`` at the top level of an expression lie."""
    places, depth, begin = [], 0, start
    for at in range(start, end):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(code[at], 0)
        if depth == 0 and code.startswith(operator, at):
            places.append((begin, at))
            begin = at + len(operator)
    places.append((begin, end))
    return places


def mutants_of(text: str, file: str) -> list[Mutant]:
    """All mutants of a file, none of them across another."""
    make = _python if file.endswith(".py") else _cxx
    found: list[Mutant] = []
    for name, named_file, was, new in NAMED:
        if named_file == file:
            start = text.index(was)  # ValueError: the file has changed, and devices.py has to
            line = text.count("\n", 0, start) + 1
            found.append(Mutant(file, line, "device", start, start + len(was), was, new, name))
    for rule, start, end, new in make(text):
        # Inside of another one is fine; half inside is not, nor inside of what is replaced.
        crossing = any(
            start < other.end and other.start < end
            and not (other.start <= start and end <= other.end and not other.replaces)
            and not (start <= other.start and other.end <= end and end - start > len(other.before))
            for other in found
        )  # fmt: skip
        if not crossing:
            line = text.count("\n", 0, start) + 1
            found.append(Mutant(file, line, rule, start, end, text[start:end], new))
    return found


def _cxx(text: str) -> Iterator[tuple[str, int, int, str]]:
    code = _code(text)
    for found in re.finditer(r"\b(if|while) \(|\breturn ", code):
        if found[1] is None:
            start, end = found.end(), code.find(";", found.end())
            if re.search(r"[{?]", code[start:end]) or (
                "&&" not in code[start:end] and "||" not in code[start:end]
            ):
                continue
        else:
            start, end = found.end(), _closing(code, found.end() - 1)
            if "{" in code[start:end]:
                continue
            start = max(start, code.rfind(";", start, end) + 1)  # behind what it declares
        if (
            end == -1
            or "{" in code[start:end]
            or re.match(r"\s*(const )?[\w:]+[*&]? [*&]?\w+ = ", code[start:end])
        ):
            continue
        if found[1] == "if":
            body = code[end + 1 :].lstrip().removeprefix("[[unlikely]]").lstrip()
            body = body.removeprefix("[[likely]]").lstrip()
            leaves = re.match(r"\{?\s*(return|throw|raise|refuse|fail|continue|break)\b", body)
            yield ("check" if leaves else "branch"), start, end, "(({0}) && !{on})"
            if not leaves:
                yield "branch always", start, end, "(({0}) || {on})"
        ands = _operands(code, start, end, "&&")
        ors = _operands(code, start, end, "||")
        if len(ors) > 1:
            for begin, stop in ors:
                yield "condition", begin, stop, "(({0}) && !{on})"
        elif len(ands) > 1:
            for begin, stop in ands:
                yield "condition", begin, stop, "(({0}) || {on})"
    for rule, pattern in STATEMENTS.items():
        for found in re.finditer(r"(?<=[;{}])\s*\n[ \t]+(" + pattern + ")", code):
            start = found.start(1)
            end = code.find(";", start)
            if (
                end != -1
                and "{" not in code[start:end]
                and not code[start:end].startswith("return")
            ):
                yield rule, start, end + 1, "if (!{on}) { {0} }"
    for found in re.finditer(GUARDS, code):
        if not re.search(rf"\b{found[2]}\b", code[found.end() : code.find("\n}\n", found.end())]):
            arguments = found[3] or "()"
            made = f"std::optional<{found[1]}> {found[2]}; "
            made += f"if (!{{on}}) {{ {found[2]}.emplace{arguments}; }}"
            yield "guard", code.index("const", found.start()), found.end(), made
    for name, rule, changed in (
        ("Py_NewRef(", "new reference", "({on} ? reinterpret_cast<PyObject*>({1}) : {0})"),
        ("Ref::borrow(", "borrowed", "({on} ? Ref({1}) : {0})"),
    ):
        for found in re.finditer(re.escape(name), code):
            end = _closing(code, found.end() - 1)
            if end != -1:
                yield rule, found.start(), end + 1, changed
    for found in re.finditer(r"\b(\w+)\.release\(\)(?=[,;)])", code):
        if found[1] not in ("tensor", "managed", "shared", "row", "view", "fresh", "guard"):
            yield "ownership", found.start(), found.end(), f"({{on}} ? {found[1]}.get() : {{0}})"


def _python(text: str) -> Iterator[tuple[str, int, int, str]]:
    for found in re.finditer(r"(?m)^ +(if|elif) ([^\n]+):\n", text):
        yield "check", found.start(2), found.end(2), "(({0}) and not {on})"
    for found in re.finditer(
        r"(?m)^ +(setattr\([^\n]*\)|storage\._swap_data_ptr_\([^\n]*\))\n", text
    ):
        yield "guard", found.start(1), found.end(1), "None if {on} else ({0})"


def with_switches(text: str, mutants: list[tuple[int, Mutant]], switch: str) -> str:
    """The text with all these mutants in it; ``switch`` is called with the number of one."""

    def render(start: int, end: int, within: list[tuple[int, Mutant]]) -> str:
        # The outermost first; of two at one place the earlier is the outer one.
        parts, at = [], start
        rest = sorted(within, key=lambda each: (each[1].start, -each[1].end, each[0]))
        while rest:
            number, mutant = rest[0]
            inside = [each for each in rest[1:] if each[1].end <= mutant.end]
            rest = [each for each in rest[1:] if each[1].end > mutant.end]
            body = render(mutant.start, mutant.end, inside)
            changed = mutant.text.replace("{on}", f"{switch}({number})")
            argument = body[body.index("(") + 1 : -1] if "{1}" in changed else ""
            parts += [
                text[at : mutant.start],
                changed.replace("{1}", argument).replace("{0}", body),
            ]
            at = mutant.end
        return "".join([*parts, text[at:end]])

    rendered = render(0, len(text), mutants)
    if lost := [each for number, each in mutants if f"{switch}({number})" not in rendered]:
        raise ValueError(f"lost in another mutant: {lost}")  # it would survive, not being there
    return rendered
