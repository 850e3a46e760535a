"""Headers of a torch release, out of its wheel on the package index and into a folder.

    python torch_headers.py FOLDER 2.8.0 2.9.1 ...

A companion extension needs nothing else of torch: it is loaded where torch is. Of a wheel, which
has 500 to 900 MB, only the parts are asked for that hold headers, some 15 MB.
"""

from __future__ import annotations

import functools
import io
import json
import os
import platform
import shutil
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")
WANTED = ("torch/include/", "torch/version.py", "torch/share/cmake/Torch/TorchConfig.cmake")


class RemoteFile(io.RawIOBase):
    """A file on a server that answers requests for ranges, read in pieces that are kept."""

    PIECE = 4 << 20

    def __init__(self, url: str) -> None:
        self.url = url
        self.place = 0
        self.pieces: dict[int, bytes] = {}
        with self._answer("bytes=0-0") as answer:
            if answer.status != 206:
                raise OSError(f"{url} is not served in ranges")
            self.size = int(answer.headers["Content-Range"].rpartition("/")[2])

    def _answer(self, range_of_bytes: str) -> HTTPResponse:
        request = urllib.request.Request(self.url, headers={"Range": range_of_bytes})
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=120)
        return answer

    def _piece(self, number: int) -> bytes:
        if number not in self.pieces:
            first = number * self.PIECE
            with self._answer(f"bytes={first}-{first + self.PIECE - 1}") as answer:
                self.pieces[number] = answer.read()
        return self.pieces[number]

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = start + offset
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number, inside = divmod(self.place, self.PIECE)
        piece = self._piece(number) if self.place < self.size else b""
        found = piece[inside : inside + len(buffer)]
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)


@functools.cache
def files_of(project: str) -> list[dict[str, str]]:
    request = urllib.request.Request(
        f"{INDEX.rstrip('/')}/{project}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        files: list[dict[str, str]] = json.load(answer)["files"]
    return files


def wheels_of(release: str, project: str = "torch") -> Iterator[tuple[str, str]]:
    """The names and addresses of the release's wheels for machines like this one."""
    for file in files_of(project):
        name = file["filename"]
        if name.startswith(f"{project}-{release}-") and name.endswith(f"_{platform.machine()}.whl"):
            yield name, file["url"].partition("#")[0]


def python_tag(version: str) -> str:
    """What the names of wheels for that Python have in them."""
    tag = f"cp{version.replace('.', '')}"
    return f"-{tag}-{tag}-"


def unpack_wheel(address: str, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Those files of the wheel; the folder is complete if it is there at all."""
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    with zipfile.ZipFile(io.BufferedReader(RemoteFile(address))) as wheel:
        wheel.extractall(unfinished, [name for name in wheel.namelist() if wanted(name)])
    unfinished.rename(folder)


def unpack(release: str, folder: Path) -> Path:
    """The folder with the release's package: its headers, and its version."""
    package = folder / f"torch-{release}" / "torch"
    if package.is_dir():
        return package
    # Headers are the same for every Python.
    wheels = sorted(wheels_of(release))
    if not wheels:
        raise SystemExit(f"torch {release} has no wheel for {platform.machine()} on {INDEX}")
    unpack_wheel(wheels[0][1], package.parent, lambda name: name.startswith(WANTED))
    return package


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for release in sys.argv[2:]:
        print(unpack(release, folder), flush=True)


if __name__ == "__main__":
    main()
