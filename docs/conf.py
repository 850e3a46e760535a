"""The manual: `make docs`, warnings are errors."""

import re
from pathlib import Path

_cmake = (Path(__file__).parent.parent / "CMakeLists.txt").read_text()
_version = re.search(r"project\(dlbridge VERSION ([0-9.]+)", _cmake)
assert _version is not None

project = "dlbridge"
author = "the authors of dlbridge"
release = _version[1]

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "sidebar_width": "230px"}
html_show_copyright = False
html_show_sourcelink = False
nitpicky = True
