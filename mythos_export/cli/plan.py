"""`mythos plan`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from mythos_runtime.cli.terminal import Command, examples, out, write
from mythos_runtime.outputs import check_file_place, writing

if TYPE_CHECKING:
    from mythos_export.plan.devices import Device
    from mythos_export.plan.estimate import Estimate


@click.command(
    cls=Command,
    short_help="Tell what a MODEL takes, before anything is loaded.",
    epilog=examples("mythos plan 1t --device 8xh200 --context 8192", "mythos plan BUNDLE --html plan.html"),
)
@click.argument("model")
@click.option("--device", default="this", show_default=True, help="A preset such as h100 or 8xh100, or this machine.")
@click.option("--context", type=click.IntRange(0), default=4096, show_default=True, help="Cached tokens of a sequence.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences whose cache has to fit.")
@click.option("--depths", type=click.IntRange(1, 4096), help="Most loops to time [default: twice as trained].")
@click.option(
    "--cache",
    type=click.Choice(["int8"]),
    help="Count cache lines as int8, as --cache int8 exports them; not for fp16.",
)
@click.option("--expert-shards", type=click.IntRange(1), help="Also: the experts in so many shards, a device each.")
@click.option("--network", help="Between them: 1gbe to 400gbe, or GB per second:microseconds [default: 100gbe].")
@click.option("--html", type=click.Path(path_type=Path), help="Write the plan as a page there.")
@click.option(
    "--list-devices",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda *given: _list(*given),
    help="Say which presets there are, and end.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def plan(
    model: str,
    device: str,
    context: int,
    batch: int,
    depths: int | None,
    cache: str | None,
    expert_shards: int | None,
    network: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """What a MODEL takes, and how fast a token can be on a device: a variant such as 1t, a config.json or its folder,
    or a bundle. Nothing is loaded."""
    from mythos_export.plan.devices import find_device
    from mythos_export.plan.estimate import PRECISIONS, estimate
    from mythos_export.plan.models import read_model
    from mythos_export.plan.shards import SHARDED_COLUMNS, find_network, sharded, sharded_note, sharded_rows
    from mythos_export.plan.words import ESTIMATE_COLUMNS, MODEL_COLUMNS, NOTE, estimate_rows, facts, model_rows

    if network is not None and expert_shards is None:
        raise click.UsageError("--network is between the shards of --expert-shards: give that too")
    if html is not None:
        check_file_place(html, "--html")
    found, on = read_model(model), find_device(device)
    if cache is not None:
        found = replace(found, int8_cache=True)
    # Int8 caches go with float32; shards of experts are for ONNX Runtime on the CPU, which has no kernels for fp8, too.
    barred = ("fp16", "fp8") if expert_shards is not None else ("fp16",) if cache is not None else ()
    listed = tuple(p for p in PRECISIONS if p not in barred)
    chosen = listed if found.precision is None else (found.precision,)
    rows = [estimate(found, each, on, context, batch, depths or 2 * found.loops) for each in chosen]
    spread, rests_on = [], ""  # before anything is printed: a request that is refused prints nothing
    if expert_shards is not None:
        link = find_network(network or "100gbe")
        spread = [sharded(found, each, on, link, expert_shards, batch, context) for each in chosen]
        rests_on = sharded_note(on, link, spread[0])
    for name, value in facts(found, on, rows):
        out.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
    if context > found.longest:
        out.print(f"The model was made for at most {found.longest} positions.", style="yellow", highlight=False)
    _show(MODEL_COLUMNS, model_rows(found, [each.need for each in rows]))
    _show(ESTIMATE_COLUMNS, estimate_rows(found, rows))
    if any(each.devices > 1 for each in rows):
        out.print(_whose(on, rows), style="yellow", highlight=False)
    for each in rows:
        if each.shard is not None:
            out.print(f"{each.need.precision}: shard {each.shard}", markup=False, highlight=False, soft_wrap=True)
    out.print(NOTE, style="dim", highlight=False)
    if spread:
        _show(SHARDED_COLUMNS, sharded_rows(spread))
        out.print(rests_on, style="dim", highlight=False)
    if html is not None:
        from mythos_export.plan.page import write_plan

        with writing(html, "--html"):
            write_plan(html, found, on, rows, spread, rests_on)
        out.print(f"page: {html}", markup=False, highlight=False)
    if as_json:
        known = asdict(found) | {"parameters": found.parameters, "active_per_loop": found.active_per_loop}
        document = {"model": known, "device": asdict(on), "estimates": [each.to_json() for each in rows]}
        document |= {"expert_shards": [each.to_json() for each in spread]} if spread else {}
        write(json.dumps(document) + "\n")


def _whose(device: Device, rows: Sequence[Estimate]) -> str:
    """How many devices each time is of: rows of one table, and not of one machine."""
    counts = ", ".join(f"{each.need.precision} of {each.devices}" for each in rows)
    beyond = [each.need.precision for each in rows if each.devices > device.count]
    text = f"Each time is of as many devices as a row needs, at work together: {counts}."
    return text + (f" {device.name} has {device.count}: {', '.join(beyond)} cannot run on it." if beyond else "")


def _show(columns: list[str], rows: list[list[str]]) -> None:
    """A table, or as few as leave nothing cut on this terminal: each has the first column, which names the rows."""
    names = [name.removeprefix(">") for name in columns]
    cells = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    wide = [max(cell, len(name)) for cell, name in zip(cells, names, strict=True)]
    narrow = [max(cell, _on_two_lines(name)) for cell, name in zip(cells, names, strict=True)]
    parts, count = [range(1, len(columns))], 1
    while any(len(part) > 1 and _width(narrow, part) > out.width for part in parts):
        count += 1
        ends = [1 + (len(columns) - 1) * number // count for number in range(count + 1)]
        parts = [range(*pair) for pair in pairwise(ends)]
    for part in parts:
        table, fits = Table(), _width(wide, part) <= out.width
        for at in (0, *part):
            name = names[at] if fits else "\n".join(textwrap.wrap(names[at], narrow[at]))
            table.add_column(name, justify="right" if columns[at].startswith(">") else "left", no_wrap=True)
        for row in rows:
            table.add_row(row[0], *(row[at] for at in part))
        out.print(table)


def _on_two_lines(name: str) -> int:
    """The least width of a name that may go on in a second line."""
    words = name.split()
    return min(max(map(len, (" ".join(words[:at]), " ".join(words[at:])))) for at in range(len(words) + 1))


def _width(cells: list[int], part: range) -> int:
    """Of a table of the first column and some others: a line and two spaces each, and the last line."""
    columns: int = sum(cells[at] + 3 for at in (0, *part))
    return columns + 1


def _list(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from mythos_export.plan.devices import PRESETS
    from mythos_export.report.format import size

    for device in PRESETS.values():
        boxes = f"{device.count} x " if device.count > 1 else ""
        rate = f"{device.multiply / 1e12:g} TFLOP/s"
        write(f"{device.name}: {boxes}{size(device.memory)}, {size(device.read)}/s, {rate}\n")
    context.exit()
