"""Which tests are asked about which files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

MOST = 5  # of a test with parameters, in the first round


@dataclass(frozen=True)
class Room:
    """Files that are tested alike: by C++ programs (with a filter), then by files of pytest's."""

    files: tuple[str, ...]
    programs: tuple[tuple[str, str], ...]
    pytest: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """Which tests are asked: with ``processes`` those that start some, each of which has to load
    torch, otherwise the rest; of one with parameters ``most``, chosen by chance, or all others."""

    processes: bool = False
    most: int = 1000000
    others: bool = False

    STARTS = frozenset({"run_child", "run_python", "scenario_outcomes", "outcomes", "Popen"})

    def of(self, items: list[Any], room: Room) -> list[Any]:
        """Those of the room's files, in the room's order."""
        by_function: dict[Any, list[Any]] = {}
        for each in items:
            starts = not self.STARTS.isdisjoint(self.names(each.function))
            if each.path.stem in room.pytest and starts == self.processes:
                by_function.setdefault(each.function, []).append(each)
        kept: set[Any] = set()
        for function, alike in by_function.items():
            few = random.Random(function.__name__).sample(alike, min(self.most, len(alike)))
            kept |= set(alike) - set(few) if self.others else set(few)
        ordered = [each for each in items if each in kept]
        return sorted(ordered, key=lambda each: room.pytest.index(each.path.stem))

    @staticmethod
    def names(function: Any) -> set[str]:
        """What it calls, and what the functions of its own file call."""
        names = set(function.__code__.co_names)
        for name in function.__code__.co_names:
            other = getattr(function, "__globals__", {}).get(name)
            if getattr(other, "__module__", None) == function.__module__:
                names |= set(getattr(getattr(other, "__code__", None), "co_names", ()))
        return names


SRC, PYTHON, LIB = "bridges/python/src/", "bridges/python/dlbridge/", "lib/src/"
CORE_TESTS = ("dlbridge_lib_tests", "-Copy*:*andom*")
COPY_TESTS = ("dlbridge_lib_tests", "C*:Fork*:Helpers*:Memory*:Threads*")
GUARDED_TESTS = ("dlbridge_guarded_tests", "*")
NUMPY_TESTS = ("dlbridge_numpy_tests", "*")
TORCH_TESTS = ("dlbridge_torch_tests", "*")
# Those that look at the most in the shortest time come first.
CROSSINGS = (
    "test_bad_capsules", "test_release", "test_managed_tensor", "test_exchange_table",
    "test_producers", "test_interfaces", "test_arguments", "test_trees", "test_registry",
    "test_numpy_specials", "test_float4", "test_policy_capsules", "test_policy_torch_to_numpy",
    "test_policy_numpy_to_torch", "test_round_trip", "test_explain_and_refusal", "test_out",
    "test_hostile", "test_rules", "test_testing_kit", "test_ledger", "test_copies", "test_devices",
    "test_device_targets", "test_devices_torch", "test_threads", "test_failing_calls",
    "test_buffer_lifetime", "test_torch_lifetime", "test_functions", "test_borrow",
    "test_peer_cases", "test_import_and_warnings", "test_load",
)  # fmt: skip
TO_TORCH = (
    "test_policy_torch_to_numpy", "test_policy_numpy_to_torch", "test_round_trip", "test_release",
    "test_explain_and_refusal", "test_devices_torch", "test_threads", "test_rules",
    "test_torch_lifetime", "test_failing_calls", "test_numpy_specials", "test_functions",
    "test_load",
)  # fmt: skip
DEVICES = ("test_devices", "test_device_targets", "test_devices_torch", "test_out")


def files(folder: str, names: str) -> tuple[str, ...]:
    return tuple(folder + name for name in names.split())


ROOMS = (
    Room(
        files(LIB, "tensor/managed_tensor.cpp plan/plan.cpp tensor/layout.cpp tensor/device.cpp"
              " tensor/dtype.cpp plan/route.cpp plan/source.cpp")
        + files("lib/include/dlbridge/", "managed_tensor.hpp plan.hpp"),
        (CORE_TESTS, GUARDED_TESTS), CROSSINGS,
    ),
    Room(
        files(LIB, "memory/host_memory.cpp copy/parallel.cpp copy/copy.cpp copy/loops.cpp"
              " copy/recipe.cpp copy/slices.cpp"),
        (COPY_TESTS, GUARDED_TESTS, ("dlbridge_cuda_tests", "*")),
        ("test_memory_pool", "test_copies", "test_out"),
    ),
    Room(
        (*files(LIB, "carry/carry.cpp carry/pass.cpp carry/streams.cpp carry/arriving_tensor.cpp"
                " carry/convert.cpp device/staging.cpp device/pinned_pool.cpp"
                " device/device_runtime.cpp"), "lib/include/dlbridge/convert.hpp"),
        (GUARDED_TESTS, CORE_TESTS), DEVICES,
    ),
    Room(
        (*files("bridges/cpython/src/", "python_lease.cpp python_text.cpp"),
         *files("bridges/numpy/src/", "numpy.cpp numpy_inexpressible.cpp numpy_lease.cpp"
                " numpy_subclasses.cpp")),
        (NUMPY_TESTS,), CROSSINGS,
    ),
    Room(
        files(SRC, "call.cpp crossing.cpp errors.cpp ledger.cpp registry.cpp trees.cpp")
        + files(SRC + "doors/", "ways.cpp dlpack_door.cpp exchange_table.cpp bridge_door.cpp"
                " exchange_table_door.cpp array_interface_door.cpp managed_tensor_door.cpp"
                " numpy_door.cpp registered_door.cpp torch_door.cpp")
        + files(SRC + "targets/", "target.cpp numpy_target.cpp managed_target.cpp"
                " library_target.cpp bridge_target.cpp")
        + files(SRC + "types/", "capsule.cpp managed_tensor_type.cpp managed_tensor_buffer.cpp"
                " managed_tensor_table.cpp"),
        (), CROSSINGS,
    ),
    Room(
        (*files(SRC + "devices/", "devices.cpp"),
         *files(SRC, "doors/door.cpp targets/pending_target.cpp types/arriving_type.cpp")),
        (), (*DEVICES, *CROSSINGS),
    ),
    Room(
        files(SRC, "torch/portable_torch.cpp torch/torch_companion.cpp torch/torch_road.cpp"
              " targets/torch_target.cpp")
        + files(PYTHON + "_torch/", "__init__.py devices.py storages.py tensors.py"),
        (), TO_TORCH,
    ),
    Room(
        files("bridges/torch/include/dlbridge/", "torch.hpp torch_storage.hpp"),
        (TORCH_TESTS,), TO_TORCH,
    ),
)  # fmt: skip
