"""What compilers tell who does it wrong: words of ours, where a type error would say nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from reading import ROOT

COMPILER = os.environ.get("CXX") or shutil.which("c++")


def header_of_dlpack() -> Path:
    """The folder that the build found."""
    cache = (ROOT / "build/CMakeCache.txt").read_text()
    found = re.search(r"DLPack_INCLUDE_DIR:PATH=(.+)", cache)
    assert found
    return Path(found[1])


def using(header: str, code: str = "") -> str:
    return f'#include "dlbridge/{header}.hpp"\nusing namespace dlbridge;\n{code}\n'


def told(source: str, *options: str, first_in_path: Path | None = None) -> str:
    """Standard error of a compiler that checks the source."""
    if COMPILER is None or not (ROOT / "build/CMakeCache.txt").exists():
        pytest.skip("needs a compiler and a build in build/")
    folders = [first_in_path] if first_in_path else []
    folders += [ROOT / "lib/include", header_of_dlpack()]
    arguments = [COMPILER, "-fsyntax-only", "-x", "c++", *(options or ("-std=c++20",)), "-"]
    arguments += [f"-I{folder}" for folder in folders]
    return subprocess.run(arguments, input=source, capture_output=True, text=True).stderr


def test_what_is_right_says_nothing() -> None:
    assert told(using("tensor_view")) == ""


def test_older_standards_are_named() -> None:
    assert "dlbridge is C++20: compile with -std=c++20" in told(using("dtype"), "-std=c++17")


def test_an_older_dlpack_is_named(tmp_path: Path) -> None:
    (tmp_path / "dlpack").mkdir()
    old = (header_of_dlpack() / "dlpack/dlpack.h").read_text()
    old = re.sub(r"(#define DLPACK_MINOR_VERSION) \d+", r"\1 1", old)
    (tmp_path / "dlpack/dlpack.h").write_text(old)
    for source in (using("dtype"), '#include "dlbridge/dlbridge.h"\n'):
        assert "dlbridge needs DLPack 1.3" in told(source, first_in_path=tmp_path)


BRIDGE = """
struct Grid {
  using Object = int;
  %s
};
void use(int x) { %s; }
"""
DESCRIBES = "static void describe(const int&, Source&);"
CONVERTS = "(void)to_managed<Grid>(x, managed_tensor_capabilities())"


@pytest.mark.parametrize(
    ("members", "use", "words"),
    [
        ("", CONVERTS, "static void describe(const Object&, dlbridge::Source&)"),
        (DESCRIBES, CONVERTS, "static dlbridge::ManagedTensor acquire(const Object&"),
        (
            DESCRIBES + "static ManagedTensor acquire(const int&, Source&);",
            "(void)convert<Grid, Grid>(x)",
            "static const dlbridge::Capabilities& capabilities(",
        ),
    ],
)
def test_what_a_bridge_lacks_is_named(members: str, use: str, words: str) -> None:
    assert words in told(using("convert", BRIDGE % (members, use)))


def test_an_element_type_that_is_not_known_is_named() -> None:
    message = told(using("element_type", "struct Odd {}; constexpr DType kOdd = dtype_of<Odd>();"))
    assert "specialise dlbridge::ElementType<T>" in message
    assert "Odd" in message


def test_a_policy_that_does_not_exist_is_no_constant() -> None:
    policy = "constexpr Policy kNone = Policy().with(Field::kGrad, Ruling::kDensify);"
    assert "refuse_ruling" in told(using("policy", policy))


def test_a_lease_that_may_throw_is_refused() -> None:
    assert "write [...]() noexcept" in told(
        using("managed_tensor", "Lease lease = Lease::calling([] {});")
    )


BINDERS = {
    "nanobind": (
        "include_dir",
        "#include <nanobind/stl/%s.h>\n" * 5 % ("vector", "map", "optional", "variant", "pair"),
    ),
    "pybind11": ("get_include", "#include <pybind11/stl.h>\n"),
}


@pytest.mark.parametrize("binder", BINDERS)
@pytest.mark.parametrize(
    "container",
    [
        "std::vector<%s>",
        "std::map<int, std::optional<%s>>",
        "std::variant<int, %s>",
        "std::optional<std::pair<int, %s>>",
    ],
)
def test_a_view_in_a_container_is_refused(binder: str, container: str) -> None:
    found, includes = BINDERS[binder]
    folders = [ROOT / "bridges/python/include", ROOT / "bridges/cpython/include"]
    folders += [getattr(pytest.importorskip(binder), found)(), sysconfig.get_path("include")]
    taken = container % "TensorView<float, 1>"
    use = f'void use({binder}::module_& m) {{ m.def("f", []({taken}) {{}}); }}'
    options = ["-std=c++20", *(f"-I{folder}" for folder in folders)]
    assert "would outlive its argument" in told(includes + using(binder, use), *options)
