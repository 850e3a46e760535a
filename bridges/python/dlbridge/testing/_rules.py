"""The rules of DLPack's text, numbered and named, and what asking one can give."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

Kind = Literal["producer", "consumer", "exchange table"]
_Check = TypeVar("_Check", bound=Callable[[Any], None])
Outcome = Literal["kept", "broken", "not applicable"]


class Violation(AssertionError):
    """A rule is broken; the text says how."""


class NotApplicable(unittest.SkipTest):
    """The subject does not have what the rule is about. pytest shows it as a skip."""


@dataclass(frozen=True)
class Rule:
    """One rule. ``must`` tells a must of the text from a should; ``text`` is the rule itself."""

    number: int
    name: str
    kind: Kind
    must: bool
    text: str
    function: Callable[[Any], None]

    def check(self, subject: Any) -> None:
        """Returns when the subject keeps the rule; raises Violation or NotApplicable."""
        self.function(subject)

    def __str__(self) -> str:
        return f"{self.number:02d}-{self.name}"


class Finding(NamedTuple):
    """What asking a rule gave; ``reason`` is empty where it is kept."""

    rule: Rule
    outcome: Outcome
    reason: str


RULES: list[Rule] = []


def enter(kind: Kind, number: int, text: str, *, must: bool = True) -> Callable[[_Check], _Check]:
    """Enters a function as the check of a rule, which has the function's name."""

    def entered(function: _Check) -> _Check:
        name = function.__name__.replace("_", "-")
        RULES.append(Rule(number, name, kind, must, text, function))
        return function

    return entered


def rules(kind: Kind | None = None) -> list[Rule]:
    """The rules for producers, consumers or exchange tables, or all, in their order."""
    return [each for each in RULES if kind in (None, each.kind)]


def rule_named(name: str) -> Rule:
    """The rule of that name, or of its number and name as ``str`` gives them."""
    for each in RULES:
        if name in (each.name, str(each)):
            return each
    raise KeyError(f"no rule is called {name!r}")


def _ask(each: Rule, subject: Any) -> Finding:
    """Asks one rule. What the subject raises unexpectedly is a finding too."""
    try:
        each.check(subject)
    except NotApplicable as why:
        return Finding(each, "not applicable", str(why))
    except Violation as why:
        return Finding(each, "broken", str(why))
    except Exception as error:
        return Finding(each, "broken", f"raised {type(error).__name__}: {error}")
    return Finding(each, "kept", "")


def run(subject: Any, only: Iterable[str] | None = None) -> list[Finding]:
    """Asks every rule for the subject's kind, or those that are named."""
    names = None if only is None else set(only)
    return [
        _ask(each, subject)
        for each in rules(subject.kind)
        if names is None or each.name in names or str(each) in names
    ]


@contextmanager
def refusal(
    *kinds: type[Exception], accepted: str, other: str = "raised {0}: {1}"
) -> Iterator[None]:
    """Holds the block to raising one of ``kinds``. ``other`` says that it raised something else,
    with places for the error's type and text, ``accepted`` that it passed."""
    try:
        yield
    except kinds:
        return
    except Exception as error:
        raise Violation(other.format(type(error).__name__, error)) from error
    raise Violation(accepted)


def require(holds: object, reason: str) -> None:
    """Raises Violation with the reason unless it holds."""
    if not holds:
        raise Violation(reason)


def given(value: Any, what: str) -> Any:
    """The value, or NotApplicable where the subject was made without it."""
    if value is None:
        raise NotApplicable(f"the subject was made without {what}")
    return value
