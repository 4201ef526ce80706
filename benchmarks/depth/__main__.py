"""Depth against quality and cost of a bundle, and what to set: `python -m benchmarks.depth BUNDLE --data FILE`.

FILE is a safetensors file with `input_ids` [Q, T] and, where the last position has a right answer, `answer` [Q];
the shipped models bring theirs (`held_out.safetensors`). Writes <name>.json and <name>.html into the folder --out.

    python -m benchmarks.depth demo/hops --data mythos_model/pretrained/hops/held_out.safetensors --budget-ms 5
    python -m benchmarks.depth --picture curves.svg hops.json text.json
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import mythos_runtime
from benchmarks.depth.curves import Recommendation, recommend
from benchmarks.depth.report import describe, draw_picture, write
from benchmarks.depth.sweep import Task, read_task, settings_of, sweep
from mythos_runtime import RuntimeBundleError

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
RESULTS = Path("build/depth/reports")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Inputs, safetensors.")
@click.option("--name", help="Of the report; default the bundle's folder.")
@click.option("--max-loops", type=click.IntRange(4), help="Deepest setting; default twice the loops of training.")
@click.option("--inputs", type=click.IntRange(4), help="Use that many inputs, evenly spread; default all.")
@click.option("--budget-ms", type=float, multiple=True, help="Recommend a setting for this time per input.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Folder of the reports.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw PATHS, reports in JSON, here.")
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout: the report as JSON.")
def main(
    paths: tuple[Path, ...],
    data: Path | None,
    name: str | None,
    max_loops: int | None,
    inputs: int | None,
    budget_ms: tuple[float, ...],
    threads: int,
    out: Path,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Sweep the depth knobs of the bundle PATHS, or draw the reports PATHS."""
    console = Console(stderr=True)
    if picture is not None:
        documents = [_report(path) for path in paths]
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(documents, picture)
        return
    if len(paths) != 1 or data is None:
        raise click.UsageError("give one bundle and --data FILE")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # better before a long run than after
            pass
    except OSError as error:
        raise click.UsageError(f"cannot write into {out} ({error.strerror}); name another with --out") from error
    try:
        model = mythos_runtime.load(paths[0], threads=threads)
        task = _spread(read_task(data), inputs)
        trained = model.spec.trained_loops
        settings = settings_of(model, max_loops or 2 * trained, THRESHOLDS)
        with Progress(console=console, transient=True) as bar:
            line = bar.add_task(f"{len(settings)} settings", total=len(task.ids))
            measured = sweep(model, task, settings, progress=lambda: bar.advance(line))
    except RuntimeBundleError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    machine = f"{platform.machine()}, {model.session.description}"
    document = describe(name or paths[0].name, task, measured, trained, machine)
    document["command"] = _command(paths[0], data, name, max_loops, inputs, budget_ms, threads)
    recommended = [recommend(measured, budget) for budget in budget_ms]
    files = write(out, document, recommended)
    _show(console, document, recommended)
    console.print(f"reports: {files[0]}, {files[1]}", soft_wrap=True)
    if as_json:
        click.echo(files[0].read_text(encoding="utf-8").replace("\n", " "))


def _command(
    bundle: Path,
    data: Path,
    name: str | None,
    max_loops: int | None,
    inputs: int | None,
    budget_ms: tuple[float, ...],
    threads: int,
) -> str:
    """What was asked for, with the names of files and nothing of where they are on this machine."""
    options: list[tuple[str, object]] = [("--data", data.name), ("--name", name), ("--max-loops", max_loops)]
    options += [("--inputs", inputs), *(("--budget-ms", f"{budget:g}") for budget in budget_ms)]
    options += [("--threads", None if threads == 1 else threads)]
    given = " ".join(f"{option} {value}" for option, value in options if value is not None)
    return f"python -m benchmarks.depth {bundle.name} {given}"


def _report(path: Path) -> dict[str, Any]:
    """A report that this command wrote. A usage error where it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path} is no report in JSON: {error}") from error
    if not isinstance(document, dict) or "saturation" not in document:
        raise click.UsageError(f"{path} is no report of a sweep; --picture draws what this command writes")
    return document


def _spread(task: Task, count: int | None) -> Task:
    if count is None or count >= len(task.ids):
        return task
    chosen = [round(index * (len(task.ids) - 1) / (count - 1)) for index in range(count)]
    return Task(task.ids[chosen], None if task.answer is None else task.answer[chosen])


def _show(console: Console, document: dict[str, Any], recommended: list[Recommendation]) -> None:
    for knob, points in document["points"].items():
        columns = (knob, document["measure"], "right", "mean depth", "loops ran", "ms")
        table = Table(*columns, title=f"by {knob}", box=SIMPLE_HEAD)
        for point in points:
            loss = point["loss"]
            bits = f"{loss['value']:.3f} ({loss['low']:.3f} to {loss['high']:.3f})"
            numbers = (f"{point['depth']:.2f}", f"{point['loops']:.2f}", f"{point['ms']:.2f}")
            table.add_row(f"{point['value']:g}", bits, f"{point['right']:.1%}", *numbers)
        console.print(table)
        harm = document["overthinking"][knob]
        word = "overthinking" if harm["found"] else "no overthinking"
        console.print(
            f"{word}: best at {knob} {harm['best']:g}, the last setting is {harm['rise']['value']:+.3f} bits from it "
            f"({harm['rise']['low']:+.3f} to {harm['rise']['high']:+.3f})"
        )
    fit = document["saturation"]
    if fit is None:
        console.print(document["saturation_failed"])
    else:
        console.print(
            f"loss = {fit['floor']['value']:.3f} + {fit['gain']['value']:.3f} "
            f"exp(-loops / {fit['scale']['value']:.2f}), {fit['explained']:.1%} explained, "
            f"{fit['left']:.3f} bits left behind the deepest"
        )
    for one in recommended:
        if one.setting is None:
            console.print(f"{one.budget_ms:g} ms: no setting is that fast; the cheapest takes {one.cheapest_ms:.2f} ms")
        else:
            console.print(f"{one.budget_ms:g} ms: {one.setting}: {one.loss:.3f} bits in {one.milliseconds:.2f} ms")


if __name__ == "__main__":
    main()
