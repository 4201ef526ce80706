"""A plan as a page: the time of a token against its depth, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from mythos_export.plan.devices import Device
from mythos_export.plan.estimate import Estimate
from mythos_export.plan.models import Model
from mythos_export.plan.shards import SHARDED_COLUMNS, Sharded, sharded_rows
from mythos_export.plan.words import ESTIMATE_COLUMNS, MODEL_COLUMNS, estimate_rows, facts, model_rows
from mythos_export.report import figure, legend, svg, write_page


def write_plan(
    path: Path, model: Model, device: Device, estimates: Sequence[Estimate], sharded: Sequence[Sharded], note: str
) -> None:
    """Write the page; `note` is what the rows of the shards rest on, if there are some. Raises OSError."""
    write_page(
        path,
        "plan.html.j2",
        model=model,
        device=device,
        facts=facts(model, device, estimates),
        columns=MODEL_COLUMNS,
        estimate_columns=ESTIMATE_COLUMNS,
        model_rows=model_rows(model, [each.need for each in estimates]),
        estimate_rows=estimate_rows(model, estimates),
        plot=_plot(model, estimates),
        sharded_columns=SHARDED_COLUMNS,
        sharded_rows=sharded_rows(sharded),
        sharded_note=note,
        shards=[(each.need.precision, each.shard) for each in estimates if each.shard],
    )


def _plot(model: Model, estimates: Sequence[Estimate]) -> Markup:
    with figure(7.2, 3.4) as (made, axes):
        for each in estimates:
            depths = range(1, len(each.seconds) + 1)
            axes.plot(depths, [1e3 * value for value in each.seconds], label=each.need.precision)
        axes.axvline(model.loops, color="#888888", linestyle=":", linewidth=1)
        axes.set(xlabel="loops of a token (dotted: as trained)", ylabel="milliseconds a token, at least", yscale="log")
        legend(made, axes, len(estimates))
        return svg(made, "least time of a token against its depth, by precision")
