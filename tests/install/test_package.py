"""The package as others build against it: what an installed wheel has, made of what was built here.

ctest runs this, as install.package, and says where the build is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ["DLBRIDGE_BUILD"])
EXAMPLE = ROOT / "examples" / "abi3-extension"
sys.path.append(str(ROOT / "cmake"))

from wheels import PYTHONS, interpreter  # noqa: E402


def run(*command: str | Path, path: tuple[Path, ...] = ()) -> str:
    """What the command prints, with those folders before all that Python looks in."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed wheel: the Python package with the C++ package inside."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(BUILD / "python" / "dlbridge", place / "dlbridge")
    install = (os.environ["CMAKE_COMMAND"], "--install", BUILD, "--component", "cpp")
    run(*install, "--prefix", place / "dlbridge")
    return place


@pytest.fixture(scope="session")
def extension(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extension, built as pip builds it, but that nothing is fetched."""
    place = tmp_path_factory.mktemp("extension")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    source = shutil.copytree(EXAMPLE, place / "source")
    build = ("wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", place, source)
    run(*pip, *build, path=(site,))
    (wheel,) = place.glob("scaling-*-cp310-abi3-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", place / "there", wheel)
    return place / "there"


def test_the_package_says_where_its_cpp_side_lies(site: Path) -> None:
    said = run(sys.executable, "-m", "dlbridge", "--include", "--cmake-dir", path=(site,))
    include, cmake = map(Path, said.splitlines())
    assert include.is_relative_to(site) and cmake.is_relative_to(site)
    for header in ("dlbridge/python.hpp", "dlbridge/nanobind.hpp", "dlbridge/dlbridge.h"):
        assert (include / header).is_file()
    assert (include / "dlpack" / "dlpack.h").is_file()
    assert (cmake / "dlbridgeConfig.cmake").is_file()


def test_what_was_not_installed_has_no_headers_and_says_what_to_do() -> None:
    ask = "import dlbridge\ntry: dlbridge.get_include()\nexcept FileNotFoundError as e: print(e)"
    assert "pip install it" in run(sys.executable, "-c", ask, path=(BUILD / "python",))


def test_sources_that_are_compiled_by_others_lie_with_what_they_include(site: Path) -> None:
    sources = [*(site / "dlbridge/share/dlbridge").glob("*.cpp")]
    assert sources
    for source in sources:
        for name in re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE):
            places = (source.parent / name, site / "dlbridge/include" / name)
            assert any(place.is_file() for place in places), f"{source.name} includes {name}"


def test_nothing_that_is_installed_names_the_folder_that_it_was_built_in(site: Path) -> None:
    for file in (*(site / "dlbridge").rglob("*.cmake"), *(site / "dlbridge").rglob("*.hpp")):
        assert str(ROOT) not in file.read_text(), file


@pytest.mark.parametrize("header", ["python.hpp", "register.hpp", "view_argument.hpp"])
def test_a_header_for_extensions_keeps_to_the_limited_api(
    site: Path, tmp_path: Path, header: str
) -> None:
    source = tmp_path / "source.cpp"
    source.write_text(f"#include <dlbridge/{header}>\n")
    keeps_to_the_limited_api(site, source)


def test_casters_keep_to_it_in_a_module_of_nanobinds_split_mode(site: Path) -> None:
    nanobind = pytest.importorskip("nanobind").include_dir()
    mode = ("-DNB_BACKEND_MODULE=nanobind_backend", "-DNB_DOMAIN=mine", "-isystem", nanobind)
    keeps_to_the_limited_api(site, ROOT / "examples/python-extension/row_sums.cpp", *mode)


def keeps_to_the_limited_api(site: Path, source: Path, *options: str) -> None:
    flags = ("-std=c++20", "-fsyntax-only", "-Wall", "-Werror", "-DPy_LIMITED_API=0x030A0000")
    folders = (f"-I{site / 'dlbridge' / 'include'}", f"-I{sysconfig.get_path('include')}")
    run(os.environ["CXX"], *flags, *options, *folders, source)


@pytest.mark.parametrize("compiler", [os.environ["CXX"], "clang++"])
def test_a_program_without_type_information_catches_what_the_core_throws(
    site: Path, tmp_path: Path, compiler: str
) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler} here")
    flags = ("-std=c++20", "-fno-rtti", "-Wall", "-Wextra", "-Werror", "-pthread")
    package = site / "dlbridge"
    linked = (ROOT / "docs/code/capsules.cpp", package / "lib/libdlbridge_core.a")
    run(compiler, *flags, f"-I{package / 'include'}", *linked, "-o", tmp_path / "program")
    assert "the view reads float64" in run(tmp_path / "program")


def test_pkg_config_knows_the_core_in_a_folder_whose_name_has_a_space(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("pkg-config"):
        pytest.skip("there is no pkg-config here")
    prefix = shutil.copytree(site / "dlbridge", tmp_path / "a prefix")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(prefix / "lib/pkgconfig"))
    options = shlex.split(run("pkg-config", "--cflags", "--libs", "dlbridge-core"))
    source = ROOT / "docs/code/capsules.cpp"
    run(os.environ["CXX"], "-std=c++20", source, *options, "-o", tmp_path / "program")
    assert "the view reads float64" in run(tmp_path / "program")


CLANG = "clang++-19"  # which has a libc++ with all of C++20 that the core needs


def compiles_with_libcxx(code: str, *flags: str | Path) -> bool:
    command = [CLANG, "-std=c++20", "-stdlib=libc++", "-fsyntax-only", "-Werror", *flags]
    if not shutil.which(CLANG):
        return False
    done = subprocess.run(
        [*map(str, command), "-x", "c++", "-"], input=code, text=True, check=False
    )
    return done.returncode == 0


def test_headers_compile_with_libcxx(site: Path) -> None:
    if not compiles_with_libcxx("#include <vector>"):
        pytest.skip("there is no Clang with libc++ here")
    code = (ROOT / "docs/code/questions.cpp").read_text()
    include = f"-I{site / 'dlbridge' / 'include'}"
    assert compiles_with_libcxx(code, "-Wall", "-Wextra", include)


def test_headers_compile_in_a_file_for_cuda(site: Path, tmp_path: Path) -> None:
    if not os.environ["NVCC"]:
        pytest.skip("there is no nvcc here")
    source = tmp_path / "doubled.cu"
    source.write_text(
        "#include <dlbridge/convert.hpp>\n"
        "#include <dlbridge/cuda_elements.hpp>\n"
        "#include <dlbridge/tensor_view.hpp>\n"
        "__global__ void doubled(__half* data) { data[threadIdx.x] += data[threadIdx.x]; }\n"
        "void doubled(const dlbridge::DeviceView<__half, 1>& view) {\n"
        "  auto* stream = static_cast<cudaStream_t>(view.stream().handle);\n"
        "  doubled<<<1, static_cast<unsigned>(view.size()), 0, stream>>>(view.data());\n"
        "}\n"
    )
    flags = ("-std=c++20", "-O0", "-arch=compute_80", "-Werror=all-warnings", "-c")
    include = f"-I{site / 'dlbridge' / 'include'}"
    run(os.environ["NVCC"], *flags, include, source, "-o", tmp_path / "doubled.o")


@pytest.mark.parametrize("compiler", [os.environ["CXX"], CLANG])
def test_a_view_is_a_mdspan_where_the_library_has_one(
    site: Path, tmp_path: Path, compiler: str
) -> None:
    source = tmp_path / "source.cpp"
    source.write_text(
        "#include <dlbridge/mdspan.hpp>\n"
        "#if !defined(__cpp_lib_mdspan)\n#error no mdspan\n#endif\n"
        "int main() {\n"
        "  auto tensor = dlbridge::ManagedTensor::own(std::vector<float>{0, 1, 2, 3}, {2, 2});\n"
        "  dlbridge::TensorView<float, 2> view(tensor);\n"
        "  auto look = dlbridge::as_mdspan(view.slice(1, 1, 2));\n"
        "  return look.extent(0) == 2 && look.extent(1) == 1 && look[1, 0] == 3 ? 0 : 1;\n"
        "}\n"
    )
    flags = ["-std=c++23", f"-I{site / 'dlbridge/include'}", "-c", source, "-o", tmp_path / "out.o"]
    if compiler == CLANG:
        flags.append("-stdlib=libc++")
    try:
        run(compiler, *flags)
    except (AssertionError, FileNotFoundError) as without:
        if not re.search("no mdspan|No such file|not found", str(without)):
            raise
        pytest.skip(f"{compiler} has no mdspan here")


def subproject(place: Path, *options: str) -> None:
    """Configures the project that takes this one in."""
    python = f"-DPython3_EXECUTABLE={sys.executable}"  # where DLPack's header is found
    build = ("-S", ROOT / "tests/install/subproject", "-B", place, python)
    run(os.environ["CMAKE_COMMAND"], *build, "-Wno-dev", *options)


def test_a_project_that_takes_this_one_in_is_left_as_it_was(tmp_path: Path) -> None:
    subproject(tmp_path)


def test_the_core_is_a_shared_library_in_a_project_that_hides_its_names(tmp_path: Path) -> None:
    """By Clang with libc++, where they are: nothing else here is built with it."""
    options = ["-DBUILD_SHARED_LIBS=ON", "-DCMAKE_CXX_VISIBILITY_PRESET=hidden"]
    flags = "-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror"
    if compiles_with_libcxx("#include <vector>"):
        options += [f"-DCMAKE_CXX_COMPILER={CLANG}"]
        flags += " -stdlib=libc++"
    subproject(tmp_path, "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS={flags}", *options)
    run(os.environ["CMAKE_COMMAND"], "--build", tmp_path, "--target", "program", "-j", "2")
    assert "the view reads float64" in run(tmp_path / "program")


def test_one_extension_takes_tensors_of_every_library(site: Path, extension: Path) -> None:
    said = run(sys.executable, EXAMPLE / "try_it.py", path=(site, extension))
    assert "one file, tensors of NumPy" in said


@pytest.mark.parametrize("version", PYTHONS)
def test_the_same_file_is_loaded_by_every_python_that_is_here(
    extension: Path, tmp_path: Path, version: str
) -> None:
    try:
        python = interpreter(version)
    except SystemExit as missing:
        pytest.skip(str(missing))
    # That Python may have no dlbridge: it then hears of it from the first call.
    script = tmp_path / "load.py"
    script.write_text(
        "import scaling\n"
        "try:\n"
        "    print(scaling.total(memoryview(b'    ').cast('f')) > 0)\n"
        "except ModuleNotFoundError as missing:\n"
        "    print(missing.name == 'dlbridge')\n"
    )
    assert run(python, script, path=(extension,)) == "True\n"
