from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import mrc_xarray

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pictures  # noqa: E402

# Sphinx only reads files in its own folder; git ignores these copies
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(
    HERE.parent / "notebooks",
    HERE / "notebooks",
    ignore=lambda _, names: [name for name in names if not name.endswith(".ipynb")],
)
pictures.draw(HERE / "pictures")

project = "mrc_xarray"
author = "the mrc_xarray developers"
copyright = "2026, the mrc_xarray developers"
version = release = mrc_xarray.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx_design"]
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
# on a busy machine, a worker that ends during a heartbeat logs a traceback into the page; errors
# of computations are raised in any case
os.environ["DASK_LOGGING__DISTRIBUTED"] = "critical"
nb_code_prompt_show = "Show the code that makes this file"
nb_code_prompt_hide = "Hide the code"

autosummary_generate = False  # tables of names only
autodoc_typehints = "none"  # numpydoc shows the types
numpydoc_show_class_members = False
add_module_names = False
default_role = "py:obj"  # names in docstrings are links where there is a page
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = f"mrc_xarray {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_theme_options = {
    "logo": {"text": f"mrc_xarray {release}"},
    "github_url": "https://github.com/mrc-xarray/mrc-xarray",
    "use_edit_page_button": True,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": {
        "**": ["page-toc", "edit-this-page"],
        # a link would lead to the copy
        **{f"notebooks/{path.stem}": ["page-toc"] for path in (HERE / "notebooks").iterdir()},
    },
    "show_prev_next": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_context = {
    "github_user": "mrc-xarray",
    "github_repo": "mrc-xarray",
    "github_version": "main",
    "doc_path": "docs",
}
# the landing page has cards instead of a sidebar, and the gallery is one page
html_sidebars = {"index": [], "gallery/index": []}
html_show_sourcelink = False
