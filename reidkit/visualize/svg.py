"""Charts as SVG inside an HTML page: text in the page's font, colours from its style sheet.

A chart is plotted in the placeholder colours of this module, which become CSS variables, so that
one picture fits the light and the dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

INK, FAINT, LINE, RIGHT, WRONG = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES = tuple(f"#0202{k:02}" for k in range(1, 7))
"""Colours of curves."""
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    LINE: "var(--line)",
    RIGHT: "var(--right)",
    WRONG: "var(--wrong)",
    **{colour: f"var(--series-{k})" for k, colour in enumerate(SERIES, start=1)},
}
"""CSS variables by placeholder; templates/base.html and report.html define them."""

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: Any = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "hatch.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reidkit",
}


@contextmanager
def chart(width: float = 4.6, height: float = 3.1) -> Iterator[Any]:
    """Yields a matplotlib figure of this size in inches, in the style of the pages."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        yield figure


def inline_svg(figure: Any, *, description: str) -> Markup:
    """A figure made within `chart` as an `<svg>` element that scales with its container.

    Args:
        description: what screen readers say in place of the picture.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", buffer.getvalue()))
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if "style" in element.attrib:
            element.attrib["style"] = _page_style(element.attrib["style"])
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
        if f"{{{_LINK}}}href" in element.attrib:
            element.attrib["href"] = element.attrib.pop(f"{{{_LINK}}}href")
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": description}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _page_style(style: str) -> str:
    """CSS declarations of matplotlib with the page's font and colours."""
    declarations: dict[str, str] = {}
    for entry in style.split(";"):
        name, _, value = entry.partition(":")
        declarations[name.strip()] = value.strip()
    declarations.pop("", None)
    declarations.pop("font-family", None)
    if "font" in declarations:
        size = re.search(r"[\d.]+px", declarations.pop("font"))
        declarations["font-size"] = size[0] if size else "10px"
    return "; ".join(
        f"{name}: {VARIABLES.get(value.lower(), value)}" for name, value in declarations.items()
    )
