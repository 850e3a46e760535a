"""The manual: `make docs`, warnings are errors."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.domains.cpp import CPPDomain

_root = Path(__file__).parent.parent
_cmake = (_root / "CMakeLists.txt").read_text()
_version = re.search(r"project\(dlbridge VERSION ([0-9.]+)", _cmake)
assert _version is not None

# What the headers say, without what is private, and without values that Sphinx cannot parse.
_private = "|".join(
    (
        '<sectiondef kind="(?:(?:private|protected)-[^"]*|friend)">.*?</sectiondef>',
        "<inner(?:class|namespace)[^>]*>[^<]*detail[^<]*</inner(?:class|namespace)>",
        r"<initializer>[ =]*[\[{].*?</initializer>",
    )
)
_headers = _root / "build/doxygen/xml"
_headers.parent.mkdir(parents=True, exist_ok=True)
subprocess.run(["doxygen", "docs/Doxyfile"], cwd=_root, check=True)
for _file in _headers.glob("*.xml"):
    _file.write_text(re.sub(_private, "", _file.read_text(), flags=re.DOTALL))

project = "dlbridge"
author = "the authors of dlbridge"
release = _version[1]

extensions = ["myst_parser", "sphinx.ext.autodoc", "breathe"]
breathe_projects = {"dlbridge": str(_headers)}
breathe_default_project = "dlbridge"
breathe_default_members = ("members", "undoc-members")
breathe_show_include = False
autodoc_typehints = "none"
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

exclude_patterns = ["compatibility.md", "matrix.md"]  # parts of testing.md

html_theme = "furo"
html_title = f"dlbridge {release}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_favicon = "site/icon.svg"
html_show_copyright = False
html_show_sourcelink = False
html_use_index = False  # the search finds more, and a telephone has no room for it
nitpicky = True
# Of other projects, and what is nobody's but ours.
nitpick_ignore_regex = [
    (
        "cpp:identifier",
        r"(std|k?DL|at|c10|nb|pybind11|nanobind|torch|Py|__|.*detail).*|(float|double)2|Base.*|Memory|ParameterNeed|Mdspan",
    )
]
suppress_warnings = ["duplicate_declaration.cpp"]  # a namespace is met in each of its headers


def _finish(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """For those who use a keyboard or a screen reader: what scrolls takes the focus, headings of
    the navigation have a level."""
    for scrolls in ("<pre", '<div class="table-wrapper'):
        context["body"] = context.get("body", "").replace(
            scrolls, f'{scrolls[:4]} tabindex="0"{scrolls[4:]}'
        )
    context["furo_navigation_tree"] = context["furo_navigation_tree"].replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )


class _Cpp(CPPDomain):
    """In the search its hundreds of names come behind pages and names of Python."""

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        for *found, _ in super().get_objects():
            yield (*found, 2)


def setup(app: Any) -> None:
    app.add_domain(_Cpp, override=True)
    app.connect("html-page-context", _finish, priority=900)  # furo makes its navigation before
