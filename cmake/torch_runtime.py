"""A torch that runs on the processor, out of its CUDA wheel and without what CUDA needs.

The package index has no other wheel of torch for Linux, and with all that it asks for it takes
5 GB. Three quarters of the wheel and most of all else are for CUDA devices. In their place comes a
small library: its functions say what CUDA says where there is no device, and torch goes on without.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from torch_headers import python_tag, unpack_wheel, wheels_of

OF_CUDA = re.compile(
    r"torch/lib/lib(torch_cuda|torch_nvshmem|caffe2_nvrtc|cusparseLt)|torch/(test/|bin/protoc)"
)
NO_DEVICE = 100  # cudaErrorNoDevice
# C++ functions give an object of which everything is zero, and its virtual ones do so, too.
COMMON = """
static char room[4096];
static void* give_room(void) { return room; }
extern void* of_a_class[] __asm__("_ZTVN10__cxxabiv117__class_type_infoE");
static void* type[] = {of_a_class + 2, "stand_in", 0};
static void* table[100] = {0, type, [2 ... 99] = give_room};
"""


def unpack_runtime(release: str, python: str, folder: Path) -> Path:
    """The folder to put on Python's path; what it needs besides is said by torch_needs()."""
    place = folder / f"torch-{release}-{python}"
    if not place.is_dir():
        (address,) = (address for name, address in wheels_of(release) if python_tag(python) in name)
        unpack_wheel(address, place, lambda name: not OF_CUDA.match(name))
        # Zip files are unpacked without their modes.
        (place / "torch" / "bin" / "torch_shm_manager").chmod(0o755)
        built = place / "torch" / "backends" / "cuda" / "__init__.py"
        built.write_text(built.read_text().replace("torch._C._has_cuda", "False"))
    stand_in_for_cuda(place / "torch" / "lib")
    return place


def torch_needs(place: Path) -> list[str]:
    """Its requirements, but for those of CUDA, which it has on some systems only."""
    (metadata,) = place.glob("torch-*.dist-info/METADATA")
    asked = re.findall(r"^Requires-Dist: (.+)$", metadata.read_text(), re.MULTILINE)
    return [each for each in asked if "extra ==" not in each and "platform_system" not in each]


def stand_in_for_cuda(libraries: Path) -> None:
    """Makes what the linker misses in torch's libraries, by the names of files and symbols."""
    linked = subprocess.run(
        ["ldd", "-r", *sorted(libraries.glob("*.so"))], capture_output=True, text=True
    )
    said = linked.stdout + linked.stderr
    missing = set(re.findall(r"^\s*(\S+) => not found", said, re.MULTILINE))
    if not missing:
        return
    symbols = set(re.findall(r"undefined symbol: (\w+)", said))
    source = libraries / "stand_in.c"
    source.write_text("\n".join([COMMON, *map(definition, sorted(symbols))]))
    stand_in = libraries / "libstand_in.so"
    subprocess.run(
        ["gcc", "-w", "-shared", "-fPIC", source, "-o", stand_in, "-lstdc++"], check=True
    )
    for name in missing:
        (libraries / name).symlink_to(stand_in.name)


def definition(symbol: str) -> str:
    """In C. Python's own symbols are its program's."""
    if symbol.startswith(("Py", "_Py")):
        return ""
    if symbol.startswith("_ZTI"):  # torch registers some types by their names
        return f'void* {symbol}[] = {{of_a_class + 2, "{symbol[4:]}", 0}};'
    if symbol.startswith("_ZT"):  # tables of virtual functions
        return f"void* {symbol}[100] = {{0, type, [2 ... 99] = give_room}};"
    if re.search("C[12]E", symbol):  # constructors
        return f"void {symbol}(void** object) {{ *object = table + 2; }}"
    if symbol.startswith("_Z"):
        return f"void* {symbol}(void) {{ return room; }}"
    return f"int {symbol}(void) {{ return {NO_DEVICE}; }}"
