"""What torch's and NumPy's own doors do today, beside dlbridge: the rows of the README's table.

Each case runs in a process of its own, so that a crash is an answer too:

    python docs/measure/today.py
"""

from __future__ import annotations

import subprocess
import sys

SETUP = """
import contextlib, gc, sys, tempfile, warnings
warnings.simplefilter("ignore")
import numpy as np, torch, dlbridge

def churn():
    gc.collect()
    kept = [np.full(1 << 21, 5.0, "f4") for _ in range(4)]
    del kept

def seven(): return torch.full((1 << 21,), 7.0)

def read_only():
    a = np.ones(4)
    a.flags.writeable = False
    return a

def show(value): print(str(value).replace("\\n", " "))
"""

# name, setup, then what each door is called by and does.
CASES: list[tuple[str, str, dict[str, str]]] = [
    (
        "z.conj().imag, 1 to 4 (right: -1 -2 -3 -4)",
        "x = torch.complex(torch.zeros(4), torch.arange(1.0, 5.0)).conj().imag",
        {
            "x.numpy()": "show(x.numpy())",
            "np.from_dlpack(x)": "show(np.from_dlpack(x))",
            "dlbridge.to_numpy(x)": "show(dlbridge.to_numpy(x))",
        },
    ),
    (
        "a view of x, then x.share_memory_() (right: 7)",
        "x = seven()",
        {
            "x.numpy()": "v = x.numpy(); x.share_memory_(); churn(); show(v[0])",
            "np.from_dlpack(x)": "v = np.from_dlpack(x); x.share_memory_(); churn(); show(v[0])",
            "dlbridge.to_numpy(x)": "v = dlbridge.to_numpy(x); x.share_memory_(); churn();"
            " show(v[0])",
        },
    ),
    (
        "a view of x, then x.data = y (right: 7)",
        "x = seven()",
        {
            "x.numpy()": "v = x.numpy(); x.data = torch.zeros(3); churn(); show(v[0])",
            "np.from_dlpack(x)": "v = np.from_dlpack(x); x.data = torch.zeros(3); churn();"
            " show(v[0])",
            "dlbridge.to_numpy(x)": "v = dlbridge.to_numpy(x); x.data = torch.zeros(3); churn();"
            " show(v[0])",
        },
    ),
    (
        "a view of x, then x.resize_(1 << 22)",
        "x = seven()",
        {
            "x.numpy()": "v = x.numpy(); x.resize_(1 << 22); churn(); show(v[0])",
            "np.from_dlpack(x)": "v = np.from_dlpack(x); x.resize_(1 << 22); churn(); show(v[0])",
            "dlbridge.to_numpy(x)": "v = dlbridge.to_numpy(x); x.resize_(1 << 22); churn();"
            " show(v[0])",
        },
    ),
    (
        "a zero tensor of 3",
        "junk = [np.full(3, 123.0, 'f4') for _ in range(99)]; del junk;"
        "x = torch._efficientzerotensor((3,))",
        {
            "x.numpy()": "show(x.numpy())",
            "np.from_dlpack(x)": "v = np.from_dlpack(x); show((v, v.flags.owndata))",
            "dlbridge.to_numpy(x)": "show(dlbridge.to_numpy(x))",
        },
    ),
    (
        "a tensor whose storage was freed",
        "x = torch.ones(4); x.untyped_storage().resize_(0)",
        {
            "x.numpy()": "show((x.numpy(), 'values from nowhere'))",
            "np.from_dlpack(x)": "show((np.from_dlpack(x), 'values from nowhere'))",
            "dlbridge.to_numpy(x)": "show(dlbridge.to_numpy(x))",
        },
    ),
    (
        "w requires grad; a write through its view (right gradient: 2)",
        "w = torch.ones(3, requires_grad=True); x = w * 1; y = (x * w).sum()",
        {
            "x.numpy()": "x.numpy()[:] = 100; y.backward(); show(w.grad)",
            "x.detach().numpy()": "x.detach().numpy()[:] = 100; y.backward(); show(w.grad)",
            "np.from_dlpack(x)": "np.from_dlpack(x)[:] = 100; y.backward(); show(w.grad)",
            "dlbridge.to_numpy(x)": "dlbridge.to_numpy(x)[:] = 100; y.backward(); show(w.grad)",
            "dlbridge.borrow(x)": "b = contextlib.ExitStack(); "
            "b.enter_context(dlbridge.borrow(x))[:] = 100; b.close(); y.backward(); show(w.grad)",
        },
    ),
    (
        "a write through a view of torch.zeros(1).expand(3)",
        "x = torch.zeros(1).expand(3)",
        {
            "x.numpy()": "x.numpy()[0] = 9; show(x)",
            "np.from_dlpack(x)": "np.from_dlpack(x)[0] = 9; show(x)",
            "dlbridge.to_numpy(x)": "dlbridge.to_numpy(x)[0] = 9; show(x)",
        },
    ),
    (
        "bfloat16",
        "x = torch.ones(2, dtype=torch.bfloat16)",
        {
            "x.numpy()": "show(x.numpy())",
            "np.from_dlpack(x)": "show(np.from_dlpack(x))",
            "dlbridge.to_numpy(x)": "show((dlbridge.to_numpy(x),"
            " dlbridge.explain(x, 'numpy').view))",
        },
    ),
    (
        "int4",
        "x = torch.empty(2, dtype=torch.int4)",
        {
            "x.numpy()": "show(x.numpy())",
            "np.from_dlpack(x)": "show(np.from_dlpack(x).dtype)",
            "dlbridge.to_numpy(x)": "show(dlbridge.to_numpy(x))",
        },
    ),
    (
        "a read-only array to torch, then a write",
        "a = read_only()",
        {
            "torch.from_numpy(a)": "torch.from_numpy(a)[0] = 9; show(a)",
            "torch.from_dlpack(a)": "torch.from_dlpack(a)[0] = 9; show(a)",
            "dlbridge.to_torch(a)": "dlbridge.to_torch(a)[0] = 9; show(a)",
        },
    ),
    (
        "np.load(mmap_mode='r') to torch, then a write",
        "f = tempfile.NamedTemporaryFile(suffix='.npy'); np.save(f, np.ones(4)); f.flush();"
        "a = np.load(f.name, mmap_mode='r')",
        {
            "torch.from_numpy(a)": "torch.from_numpy(a)[0] = 9; show(a)",
            "torch.from_dlpack(a)": "torch.from_dlpack(a)[0] = 9; show(a)",
            "dlbridge.to_torch(a)": "dlbridge.to_torch(a)[0] = 9; show(a)",
        },
    ),
    (
        "a[::-1] to torch",
        "a = np.arange(3)[::-1]",
        {
            "torch.from_numpy(a)": "show(torch.from_numpy(a))",
            "torch.from_dlpack(a)": "show(torch.from_dlpack(a))",
            "dlbridge.to_torch(a)": "show(dlbridge.to_torch(a))",
        },
    ),
    (
        "bytes swapped ('>f4') to torch",
        "a = np.arange(3, dtype='>f4')",
        {
            "torch.from_numpy(a)": "show(torch.from_numpy(a))",
            "torch.from_dlpack(a)": "show(torch.from_dlpack(a))",
            "dlbridge.to_torch(a)": "show(dlbridge.to_torch(a))",
        },
    ),
    (
        "a masked array to torch",
        "a = np.ma.array([1, 2, 3], mask=[0, 1, 0])",
        {
            "torch.from_numpy(a)": "show(torch.from_numpy(a))",
            "torch.from_dlpack(a)": "show(torch.from_dlpack(a))",
            "dlbridge.to_torch(a)": "show(dlbridge.to_torch(a))",
        },
    ),
    (
        "a JAX array to torch, then a write",
        "import jax; a = jax.numpy.arange(3.0)",
        {
            "torch.from_dlpack(a)": "torch.from_dlpack(a)[0] = 9; show(a)",
            "dlbridge.to_torch(a)": "dlbridge.to_torch(a)[0] = 9; show(a)",
        },
    ),
]


def answer(setup: str, action: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + setup + "\n" + action],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1]
    return done.stdout.strip()


def main() -> None:
    for name, setup, doors in CASES:
        print(name)
        for door, action in doors.items():
            print(f"    {door:24} {answer(setup, action)}", flush=True)


if __name__ == "__main__":
    main()
