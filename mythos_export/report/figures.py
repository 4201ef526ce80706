"""Plots in one style, as SVG that is inside the page."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#F0E442")
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#e4e4e4",
    "font.size": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "mythos-export",  # the same plot is the same bytes
}


@contextmanager
def figure(
    width: float = 7.2,
    height: float = 3.2,
    rows: int = 1,
    columns: int = 1,
    margins: Mapping[str, float] | None = None,
) -> Iterator[tuple[Figure, Any]]:
    """A figure (size in inches) and its axes, in the reports' style; no display is needed and no state is left.

    `margins` as `Figure.subplots_adjust` takes them; without, they are fitted to the labels, which takes longer.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {**_STYLE, "axes.prop_cycle": cycler(color=COLORS), "figure.constrained_layout.use": margins is None}
    with matplotlib.rc_context(style):
        made = Figure(figsize=(width, height))
        FigureCanvasSVG(made)
        if margins is not None:
            made.subplots_adjust(**margins)
        yield made, made.subplots(rows, columns)


def legend(made: Figure, axes: Any, columns: int = 3) -> None:
    """A legend above the axes, where no data is."""
    made.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


# What a page draws otherwise in the dark, and what stands for it there (base.html.j2); alone: as it is here
_THEME = {
    "#000000": "currentColor",
    "#333333": "currentColor",
    "#888888": "var(--quiet, #888888)",
    "#e4e4e4": "var(--line, #e4e4e4)",
    COLORS[0].lower(): f"var(--plot-blue, {COLORS[0]})",
    COLORS[6]: f"var(--plot-grey, {COLORS[6]})",
}


def svg(made: Figure, label: str) -> Markup:
    """The figure as an <svg> element that scales with the page; `label` is what a screen reader says."""
    buffer = io.StringIO()
    made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"(fill|stroke): (#\w{6})", lambda found: f"{found[1]}: {_THEME.get(found[2], found[2])}", text)
    text = text.replace("<svg", '<svg fill="currentColor"', 1)  # texts say no colour of their own
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Identifiers are unique within a plot only; several plots share a page.
    prefix = f"p{zlib.crc32(text.encode())}-"
    text = re.sub(r'(\bid=")', rf"\g<1>{prefix}", text)
    text = re.sub(r'((?:xlink:href|href)="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r"(url\(#)", rf"\g<1>{prefix}", text)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))
