"""Sphinx configuration of the book: from committed outputs, for reading without a network."""

from pathlib import Path

import synthbook

project = "synthbook"
author = "The synthbook authors"
copyright = "the synthbook authors; text and code Apache-2.0, data sets keep their own licenses"
release = synthbook.__version__

extensions = ["myst_nb", "sphinx_design", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "synthbook"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_last_updated_fmt = None
html_show_sphinx = False
html_search_scorer = str(Path(__file__).with_name("scorer.js"))
html_show_search_summary = False  # the theme fetches each hit's page for a summary, which browsers refuse on file://
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "search_bar_text": "Search the book",
    "toc_title": "On this page",
    "navbar_start": [],
    "navbar_persistent": [],  # one search field, the sidebar's
    "footer_content_items": ["copyright.html"],
}

# one vendored file; the menu would fetch others
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local", "scale": 0.92}}
