"""Calls both operators with tensors of every kind, and is refused what cannot be written to."""

import sys

import torch

import dlbridge

for library in sys.argv[1:]:
    torch.ops.load_library(library)
by_bridge, stable = torch.ops.manual.halved.out, torch.ops.manual_stable.halved.out

x = torch.arange(3.0)
for halved in (by_bridge, stable):
    for source in (x, torch._neg_view(-x), torch.arange(6.0)[::2] / 2):
        out = torch.empty(3)
        assert halved(source, out=out) is out
        assert torch.equal(out, x / 2), (halved, source, out)
    # Strided, or with its negative bit still set: torch brings back what is written to its copy.
    for out in (torch.empty(6)[::2], torch._neg_view(torch.empty(3))):
        assert torch.equal(halved(x, out=out), x / 2)

# By the bridge, memory that nobody may write to there is refused, with its class and its reasons.
with torch.no_grad():
    for out in (torch.zeros(3, requires_grad=True), torch.zeros(1).expand(3)):
        try:
            by_bridge(x, out=out)
        except dlbridge.ConversionRefused as refused:
            assert refused.reasons and not out.any()
            print(refused)
        else:
            raise AssertionError("a refusal was expected")
# Without it the author has to think of that; and a refusal is a RuntimeError with its message.
try:
    stable(x.double(), out=torch.empty(3))
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("a refusal was expected")
print("both operators write to their out")
