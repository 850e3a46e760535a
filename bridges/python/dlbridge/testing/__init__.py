"""A conformance kit for DLPack: the rules of its text, as named checks that give reasons.

For whoever writes a producer (``__dlpack__``), a consumer (``from_dlpack``) or a C exchange table::

    from dlbridge import testing

    PRODUCER = testing.Producer(make=lambda: mylib.arange(6), values=[0, 1, 2, 3, 4, 5])

    @pytest.mark.parametrize("rule", testing.rules("producer"), ids=str)
    def test_dlpack(rule):
        rule.check(PRODUCER)

A check returns when the rule is kept, raises ``Violation`` (an ``AssertionError``) with the reason
when it is not, and ``NotApplicable`` (which pytest shows as a skip) when the subject cannot be
asked. ``run`` asks every rule and gives a list. The checks hand out capsules made by ctypes, and
count how often each deleter is called. Some broken subjects end the process when they are asked;
``python -m dlbridge doctor`` asks in a child process.
"""

from dlbridge.testing._consumer import Consumer
from dlbridge.testing._hand_made import HandMade, Recipe
from dlbridge.testing._producer import Producer
from dlbridge.testing._rules import (
    RULES,
    Finding,
    NotApplicable,
    Rule,
    Violation,
    rule_named,
    rules,
    run,
)
from dlbridge.testing._table import ExchangeTable

__all__ = [
    "RULES",
    "Consumer",
    "ExchangeTable",
    "Finding",
    "HandMade",
    "NotApplicable",
    "Producer",
    "Recipe",
    "Rule",
    "Violation",
    "rule_named",
    "rules",
    "run",
]
