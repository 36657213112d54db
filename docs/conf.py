from __future__ import annotations

import shutil
from pathlib import Path

import mrc_xarray

HERE = Path(__file__).parent

# Sphinx only reads files in its own folder; git ignores these copies
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(
    HERE.parent / "notebooks",
    HERE / "notebooks",
    ignore=lambda _, names: [name for name in names if not name.endswith(".ipynb")],
)

project = "mrc_xarray"
author = "the mrc_xarray developers"
copyright = "2026, the mrc_xarray developers"
version = release = mrc_xarray.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# the code of each page runs at each build, in a temporary folder
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "none"  # numpydoc shows the types
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"mrc_xarray {release}"
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_show_sourcelink = False
