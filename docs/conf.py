"""Settings of Sphinx, which builds these pages: `make docs`."""

from pathlib import Path

from sphinx.application import Sphinx

from claude_proxy import __version__

project = "claude-proxy"
author = "the claude-proxy contributors"
project_copyright = "the claude-proxy contributors, MIT licence"
version = release = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3  # every heading of these levels can be linked to, as on GitHub

smartquotes = False  # options begin with two hyphens

html_theme = "alabaster"
html_title = f"claude-proxy {__version__}"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "description": "The egress firewall for coding agents",
    "fixed_sidebar": True,
    "page_width": "72rem",
    "sidebar_width": "16rem",
    "body_max_width": "48rem",
    "font_family": "system-ui, sans-serif",
    "head_font_family": "system-ui, sans-serif",
    "code_font_family": "ui-monospace, 'Cascadia Code', Menlo, Consolas, monospace",
    "show_powered_by": False,
    "show_relbars": True,
    "sidebar_collapse": True,
}
html_sidebars = {"**": ["about.html", "searchbox.html", "navigation.html"]}

_AT_THE_TOP = {
    "project/security": "SECURITY.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/architecture": "ARCHITECTURE.md",
    "project/changelog": "CHANGELOG.md",
}


def _take_from_the_top(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the text of a page at the top of the repository in, its links as seen from here."""
    if docname not in _AT_THE_TOP:
        return
    text = (Path(__file__).parents[1] / _AT_THE_TOP[docname]).read_text("utf-8")
    for name, page in _AT_THE_TOP.items():
        for end in ")#":
            here = name.removeprefix("project/")
            text = text.replace(f"]({page}{end}", f"]({here}.md{end}")
    source[0] = text.replace("](docs/", "](../").replace("](README.md)", "](../index.md)")


def setup(app: Sphinx) -> None:
    """Have Sphinx call what is above."""
    app.connect("source-read", _take_from_the_top)
