"""What crosses: recorded line by line, counted, forbidden, or given a policy.

The functions are those of ``dlbridge`` itself. ``caller()``, for code between the user's and
dlbridge, tells whose line a crossing would be: file, line and function.
"""

from dlbridge.ledger.blocks import Block, caller, no_copies, policy, stats

__all__ = ["Block", "caller", "no_copies", "policy", "stats"]
