"""Reports that people read: one self-contained HTML page with inline SVG plots, no JavaScript, nothing to fetch.

    from mythos_export.report import figure, svg, write_page

    with figure(width=7, height=3) as (fig, axes):
        axes.semilogy(loops, error)
    write_page(path, "parity.html.j2", verdict=..., plot=svg(fig, "error per iteration, log scale"))

Templates extend `base.html.j2` and use its macros (`macros.html.j2`), so that all reports look alike. Each report has
a template of its own in `templates/`; what it shows is computed elsewhere and is also beside it as JSON.
"""

from mythos_export.report.figures import COLORS, figure, legend, svg
from mythos_export.report.page import render, write_json, write_page

__all__ = ["COLORS", "figure", "legend", "render", "svg", "write_json", "write_page"]
