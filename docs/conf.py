"""The manual: `make docs`, warnings are errors."""

import re
from pathlib import Path
from typing import Any

_cmake = (Path(__file__).parent.parent / "CMakeLists.txt").read_text()
_version = re.search(r"project\(dlbridge VERSION ([0-9.]+)", _cmake)
assert _version is not None

project = "dlbridge"
author = "the authors of dlbridge"
release = _version[1]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
autodoc_typehints = "none"
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"dlbridge {release}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_favicon = "site/icon.svg"
html_show_copyright = False
html_show_sourcelink = False
nitpicky = True


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


def setup(app: Any) -> None:
    app.connect("html-page-context", _finish, priority=900)  # furo makes its navigation before
