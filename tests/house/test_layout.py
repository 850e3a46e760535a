"""The rooms of the house and the arrows between them, read out of the sources: nothing is built."""

from __future__ import annotations

import ast
import re
import runpy
from collections import defaultdict
from pathlib import Path

import pytest
from reading import (
    CXX,
    ROOT,
    circles,
    code_of,
    declared_elsewhere,
    files,
    gil_under_locks,
    imported,
    included,
    locked_statics,
    module_of,
    python_in_initialisers,
    resolved,
    text_of,
)

MOST_LINES = 400
PACKAGE = Path("bridges/python/dlbridge")
SOURCES = files(["lib", "bridges"], CXX)
MODULES = files([str(PACKAGE)], {".py"})
ROOTS = [
    path.relative_to(ROOT)
    for path in sorted([*(ROOT / "lib").iterdir(), *(ROOT / "bridges").glob("*/*")])
    if path.name in ("include", "src")
]
INCLUDES = {
    path: {found for name in included(path) if (found := resolved(path, name, ROOTS))}
    for path in SOURCES
}

# Which other bridges' headers a bridge may include; each may include the core's and its own.
ARROWS = {
    "bridges/numpy": {"bridges/cpython"},
    "bridges/python": {"bridges/arrow", "bridges/cpython", "bridges/numpy"},
}
# The one file of bridges/python that knows the library, wherever it lies in its rooms.
COMPANIONS = {"torch_companion.cpp": "bridges/torch", "cuda_companion.cpp": "bridges/cuda"}
# Who may spell which header of others; lib is among none of them.
SPELLED = {
    r"Python\.h": {"bridges/cpython", "bridges/numpy", "bridges/python"},
    r"numpy/.*": {"bridges/numpy", "bridges/python"},
    r"(ATen|torch|c10)/.*": {"bridges/torch"},
    r"(cuda\w*|driver_types|cooperative_groups)(\.h|/.*)": {"bridges/cuda"},
}
PUBLIC_NAMES_ONLY = ("functions", "engines", "testing", "doctor")


def room_of(path: Path) -> str:
    return "lib" if path.parts[0] == "lib" else "/".join(path.parts[:2])


def companion_of(path: Path) -> str:
    """The bridge that the file is the companion of."""
    return COMPANIONS.get(path.name, "") if room_of(path) == "bridges/python" else ""


def is_torchs_vocabulary(header: Path) -> bool:
    """Whether it says what torch calls things, and brings in none of torch's headers."""
    if room_of(header) != "bridges/torch":
        return False
    own = [each for each in INCLUDES[header] if room_of(each) == "bridges/torch"]
    foreign = [name for name in included(header) if not resolved(header, name, ROOTS)]
    spells_torch = any(re.match("(ATen|torch|c10)/", name) for name in foreign)
    return not spells_torch and all(map(is_torchs_vocabulary, own))


def fulfilled(wrong: list[str]) -> None:
    """A list in full: pytest would show its first item."""
    if wrong:
        pytest.fail("\n".join(["the rule is broken by", *sorted(set(wrong))]), pytrace=False)


# --- arrows ---------------------------------------------------------------------------------------


def test_arrows_point_from_the_bridges_to_the_core_and_to_no_other_bridge() -> None:
    wrong = []
    for path, headers in INCLUDES.items():
        room = room_of(path)
        allowed = {"lib", room, companion_of(path)} | ARROWS.get(room, set())
        if room == "bridges/python":
            headers = {each for each in headers if not is_torchs_vocabulary(each)}
        wrong += [f"{path} includes {each}" for each in headers if room_of(each) not in allowed]
    fulfilled(wrong)


def test_every_included_file_of_ours_is_found() -> None:
    """Or else a wrong arrow could hide behind a path that this test cannot follow."""
    ours = {path.name for path in SOURCES}
    wrong = [
        f"{path} includes {name}"
        for path in SOURCES
        for name in included(path)
        if Path(name).name in ours and not resolved(path, name, ROOTS)
        if not re.fullmatch("|".join(SPELLED), name)
    ]
    fulfilled(wrong)


@pytest.mark.parametrize("spelled", SPELLED)
def test_headers_of_others_are_included_by_their_own_bridges(spelled: str) -> None:
    wrong = [
        f"{path} includes {name}"
        for path in SOURCES
        for name in included(path)
        if re.fullmatch(spelled, name) and not resolved(path, name, ROOTS)
        if not SPELLED[spelled] & {room_of(path), companion_of(path)}
    ]
    fulfilled(wrong)


def test_private_headers_of_the_core_stay_in_it() -> None:
    """But for the copy engine's, which cuts copies for the kernels of bridges/cuda as well."""
    private, copies = Path("lib/src"), Path("lib/src/copy")
    wrong = [
        f"{path} includes {header}"
        for path, headers in INCLUDES.items()
        for header in headers
        if header.is_relative_to(private) and room_of(path) != "lib"
        if not (room_of(path) == "bridges/cuda" and header.is_relative_to(copies))
    ]
    fulfilled(wrong)


def test_no_header_includes_itself_by_way_of_others() -> None:
    graph = {str(path): {str(each) for each in headers} for path, headers in INCLUDES.items()}
    fulfilled([" <-> ".join(circle) for circle in circles(graph)])


def test_no_module_of_the_package_imports_itself_by_way_of_others() -> None:
    compiled = files([str(PACKAGE)], {".pyi"})
    known = {module_of(path, PACKAGE) for path in [*MODULES, *compiled]}
    graph = {module_of(path, PACKAGE): imported(path, PACKAGE, known) for path in MODULES}
    fulfilled([" <-> ".join(circle) for circle in circles(graph)])


@pytest.mark.parametrize("room", PUBLIC_NAMES_ONLY)
def test_a_room_on_top_uses_public_names_only(room: str) -> None:
    own = f"dlbridge.{room}"
    wrong = []
    for path in MODULES:
        if not path.is_relative_to(PACKAGE / room):
            continue
        for node in ast.walk(ast.parse(text_of(path))):
            line = getattr(node, "lineno", 0)
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                beyond = node.level > len(path.relative_to(PACKAGE).parts) - 1
                names = [f"dlbridge._from_outside.{node.module}"] if beyond else []
            elif isinstance(node, ast.Attribute):
                names = [ast.unparse(node)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = re.findall(r"dlbridge(?:\.\w+)+|\b_core\b", node.value)
            wrong += [
                f"{path}:{line}: {name}"
                for name in names
                if re.fullmatch(r"dlbridge(\.\w+)*\._(?!_)\w+(\.\w+)*|_core", name)
                and not name.startswith(f"{own}.")
            ]
    fulfilled(wrong)


# --- files and their names ------------------------------------------------------------------------


def test_no_file_of_the_core_and_the_bridges_is_too_long() -> None:
    lines = {
        path: text_of(path).count("\n") for path in files(["lib", "bridges"], CXX | {".py", ".pyi"})
    }
    fulfilled([f"{path}: {count}" for path, count in lines.items() if count > MOST_LINES])


def test_only_a_header_and_its_source_have_the_same_name() -> None:
    """Examples are left out, those of docs/ too: each is a project of its own."""
    alike: dict[str, list[Path]] = defaultdict(list)
    for path in files(["lib", "bridges", "tests", "bench"], CXX):
        alike[path.stem].append(path)
    wrong = []
    for paths in alike.values():
        headers = [path for path in paths if path.suffix in (".h", ".hpp", ".cuh")]
        pair = len(headers) == 1 and {room_of(path) for path in paths} == {room_of(paths[0])}
        if len(paths) > 2 or (len(paths) == 2 and not pair):
            wrong.append(" ".join(map(str, paths)))
    fulfilled(wrong)


def test_a_private_header_has_a_source_of_its_name_or_is_header_only() -> None:
    wrong = []
    for path in SOURCES:
        if path.suffix == ".hpp" and "src" in path.parts:
            sources = [path.with_suffix(suffix) for suffix in (".cpp", ".cu")]
            elsewhere = declared_elsewhere(code_of(text_of(path)))
            if elsewhere and not any((ROOT / each).exists() for each in sources):
                wrong.append(f"{path} declares {', '.join(elsewhere)}")
    fulfilled(wrong)


# --- Python's lock and C++'s ----------------------------------------------------------------------


def test_no_static_initialiser_calls_python() -> None:
    """A thread in it holds a lock of C++, and waits for the GIL when Python lets another one run:
    one that waits for the same lock under the GIL waits for ever."""
    found = {path: python_in_initialisers(text_of(path)) for path in SOURCES}
    fulfilled([f"{path}:{line}" for path, lines in found.items() for line in lines])


def test_the_gil_is_neither_taken_nor_let_go_under_a_lock() -> None:
    found = {path: gil_under_locks(text_of(path)) for path in SOURCES}
    fulfilled([f"{path}:{line}" for path, lines in found.items() for line in lines])


def test_the_core_finds_nothing_out_under_a_static_variables_lock() -> None:
    """A fork in another thread would leave it shut. Devices are refused to a forked process."""
    core = [path for path in SOURCES if path.parts[:2] == ("lib", "src")]
    found = {path: locked_statics(text_of(path)) for path in core if path.name != "pinned_pool.cpp"}
    fulfilled([f"{path}:{line}" for path, lines in found.items() for line in lines])


def test_the_reader_finds_static_variables_that_are_made_by_a_call() -> None:
    code = """\
int f() {
  static const bool has = ask();
  static auto& all = *new std::map<int, int>;
  static const bool seen = [] { return ask(); }();
  static constinit std::atomic<int> none{-1};
  static std::atomic<Share*> declared;
  static const char* const kNames[] = {"a", "b"};
}
static void g(int (*h)());
"""
    assert locked_statics(code) == [2, 4]


# --- the reader itself ----------------------------------------------------------------------------

CALLS_PYTHON = {
    "in a function": "Ref f() {\n  static PyObject* const name =\n      checked(intern());\n}",
    "in a lambda": "void f() {\n  static const T kT = []() -> T { return PyList_New(0); }();\n}",
    "in a namespace": "namespace a {\nconst Ref kNone = made(Py_None, PyLong_FromLong(1));\n}",
    "by a helper": "T g() { return PyList_New(0); }\nvoid f() {\n  static T kT = g();\n}",
    "in parentheses": "void f() {\n  static const Ref kOne(PyLong_FromLong(1));\n}",
}
CALLS_NOTHING = {
    "a function": "class A {\n  static bool is(Ref o) noexcept { return PyLong_Check(o); }\n};",
    "a constructor": "A::A(int x = 1) : a_(Py_IsInitialized() == 0), b_{x} { PyList_New(0); }",
    "a member": "struct Tools {\n  Ref name = checked(PyUnicode_FromString(text));\n};",
    "a table": "PyMethodDef kAll[] = {{nullptr, reinterpret_cast<PyCFunction>(f), METH_O}};",
    "a type": "PyTypeObject type = {PyVarObject_HEAD_INIT(nullptr, 0)};",
    "a slot": "T type = [] {\n  T t{};\n  t.free = [](Ref o) { Py_DECREF(o); };\n  return t;\n}();",
    "a comment": '// static x = PyList_New(0);\nstatic const char* const kText = "PyList_New(0)";',
    "later": "void f() {\n  static const Tools* made = nullptr;\n  PyList_New(0);\n}",
    "an operator": "A& operator=(A&& other) noexcept { Py_XDECREF(o_); }\nA(const A&) = delete;",
}


@pytest.mark.parametrize("name", CALLS_PYTHON)
def test_the_reader_finds_python_in_an_initialiser(name: str) -> None:
    assert len(python_in_initialisers(CALLS_PYTHON[name])) == 1


@pytest.mark.parametrize("name", CALLS_NOTHING)
def test_the_reader_leaves_alone_what_is_none(name: str) -> None:
    assert python_in_initialisers(CALLS_NOTHING[name]) == []


def test_the_reader_knows_how_long_a_lock_is_held() -> None:
    code = """
void f() {
  { const std::lock_guard lock(mutex_); }
  const WithoutGil one;
  std::unique_lock<std::mutex> lock(mutex_);
  if (x) { const WithoutGil two; }
  lock.unlock();
  const WithoutGil three;
  lock.lock();
  PyEval_SaveThread();
}
void g() { const WithoutGil four; }
"""
    assert gil_under_locks(code) == [6, 10]


def test_the_reader_tells_declared_functions_from_defined_ones() -> None:
    code = """
namespace a {
struct S {
  int x = f(1); void (*hook)(int); std::function<void(int)> call; S() = default; int m();
};
int declared(int x);
inline int defined() { return declared(1); }
template <typename T> T made(T x);
constexpr int kMost = most(3);
}
"""
    assert declared_elsewhere(code) == ["m", "declared"]


def test_what_mutants_take_out_is_there() -> None:
    named = runpy.run_path(str(ROOT / "tests/mutation/devices.py"))["NAMED"]
    assert [rule for rule, file, text, _ in named if text not in text_of(Path(file))] == []
