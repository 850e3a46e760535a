"""The manual: `make docs`, warnings are errors."""

import re
from pathlib import Path

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
html_show_copyright = False
html_show_sourcelink = False
nitpicky = True
