"""`mythos bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Column, Table

from mythos_runtime.cli.progress import steps
from mythos_runtime.cli.terminal import Command, err, examples, out, write
from mythos_runtime.manifest import read_manifest
from mythos_runtime.outputs import check_folder_place


@click.command(
    cls=Command,
    short_help="Time a BUNDLE on this machine, against its limits.",
    epilog=examples("mythos bench BUNDLE --quick -o reports/", "mythos bench --compare before.json after.json"),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The report's folder [default: BUNDLE/reports].")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: one per physical core].")
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True, help="In new processes each.")
@click.option("--turn", "turn_seconds", type=click.FloatRange(0), default=0.2, show_default=True, help="Seconds each.")
@click.option("--quick", is_flag=True, help="Batch 1 only, at the trained depth and with halting; still minutes.")
@click.option("--capacity", type=click.IntRange(min=2), help="Tokens that a cache can hold [default: 4096 at most].")
@click.option("--backends", help="Some of bodies, kernels, eager, cuda, tensorrt, triton; ratios refer to the first.")
@click.option("--ids", type=click.Path(path_type=Path), help="Safetensors with input_ids, instead of random ids.")
@click.option("--generation", is_flag=True, help="Time generation by depth instead: one sequence and many, in turns.")
@click.option("--depth-trace", type=click.Path(path_type=Path), help="Depths to replay there (mythos run writes them).")
@click.option("--compare", nargs=2, type=click.Path(path_type=Path), help="Two reports: what changed beyond noise.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def bench(
    bundle: Path | None,
    output: Path | None,
    backends: str | None,
    generation: bool,
    depth_trace: Path | None,
    compare: tuple[Path, Path] | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Time a BUNDLE on this machine, and hold it against what the machine can do.

    Writes latency.json and latency.html, or generation.json and generation.html with --generation; a bundle stays valid
    with them. With --compare A B, compares two latency reports.

    Takes minutes, tens of them by default: each of --rounds starts every backend anew. A first look, in about a minute:
    --quick --rounds 1 --turn 0. The larger the model, the longer; what is left is shown once it can be told.
    """
    if (bundle is None) == (compare is None):
        raise click.UsageError("give either a BUNDLE to time, or --compare A.json B.json")
    if depth_trace is not None and not generation:
        raise click.UsageError("--depth-trace belongs to --generation")
    others = {"capacity": options["capacity"], "backends": backends, "ids": options["ids"], "compare": compare}
    if generation and (alone := [name for name, value in others.items() if value is not None]):
        raise click.UsageError(f"--{alone[0]} does not go with --generation")
    if compare is not None:
        _show_changes(*compare, as_json)
        return
    from mythos_export.bench.report import write_report
    from mythos_export.bench.run import BenchOptions
    from mythos_export.bench.run import bench as run_bench

    assert bundle is not None
    folder = output or bundle / "reports"
    check_folder_place(folder, "-o")
    if generation:
        _generation(bundle, folder, depth_trace, as_json, options)
        return
    asked = options["capacity"]
    longest = read_manifest(bundle, verify_hashes=False).spec.max_seq_len
    if asked is not None and asked > longest:
        text = f"--capacity {asked}: the model takes at most {longest} tokens, so caches hold {longest}"
        err.print(text, style="yellow", highlight=False)
    command = f"mythos bench {bundle.name}" + _words(options, backends)
    if backends:
        options["backends"] = tuple(_backends(backends))
    with steps() as step:
        step("measure")
        document = run_bench(bundle, BenchOptions(command=command, **options), step.phase)
    json_file, page = write_report(document, folder)
    show(document)
    out.print(f"Written: {page} and {json_file.name}", highlight=False)
    if as_json:
        write(json.dumps(document) + "\n")


def _generation(bundle: Path, folder: Path, trace: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from mythos_export.bench.generation.measure import GenerationOptions, measure_generation
    from mythos_export.bench.generation.report import headline, write_report

    threads, rounds = options["threads"], options["rounds"]
    sequences = (1, 8) if options["quick"] else GenerationOptions.sequences
    command = f"mythos bench {bundle.name} --generation" + ("" if trace is None else f" --depth-trace {trace.name}")
    command += _words(options | {"turn_seconds": 0.2}, None)
    given = GenerationOptions(threads, rounds, 5 * options["turn_seconds"], sequences, trace, command)
    with steps() as step:
        step("measure")
        document = measure_generation(bundle, given, step.phase)
    json_file, page = write_report(document, folder)
    out.print(headline(document), style="bold", highlight=False)
    out.print(f"Written: {page} and {json_file.name}", highlight=False)
    if as_json:
        write(json.dumps(document) + "\n")


def _backends(text: str) -> list[str]:
    from mythos_export.bench.backends import BACKENDS
    from mythos_export.errors import BenchError

    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in BACKENDS and ":" not in name]
    if unknown:
        raise BenchError(f"there is no backend {unknown[0]!r}; the backends are {', '.join(BACKENDS)}")
    return names


def _words(options: dict[str, Any], backends: str | None) -> str:
    """The options as they were given, for the report."""
    given = {"threads": options["threads"], "capacity": options["capacity"], "backends": backends}
    given["ids"] = options["ids"] and options["ids"].name
    words = "".join(f" --{name} {value}" for name, value in given.items() if value is not None)
    words += "" if options["rounds"] == 6 else f" --rounds {options['rounds']}"
    words += "" if options["turn_seconds"] == 0.2 else f" --turn {options['turn_seconds']}"
    return words + (" --quick" if options["quick"] else "")


def show(document: dict[str, Any]) -> None:
    """The rows as a table, who is missing, and the verdict."""
    from mythos_export.report.format import percent, seconds

    table = Table("", "median", Column("interval", no_wrap=True), "tokens/s", "× first", "of limit", box=box.SIMPLE)
    for workload in dict.fromkeys(row["workload"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["workload"] == workload]
        bound = next((row["bound_by"] for row in rows if row["bound_by"]), "no limit known")
        table.add_row(f"[bold]{workload}[/] [dim]({bound})[/]")
        for row in rows:
            between = f"{seconds(row['interval']['low'])} to {seconds(row['interval']['high'])}"
            ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
            cells = (seconds(row["median"]), between, f"{row['tokens_per_second']:.0f}", ratio)
            share = "" if row["fraction_of_limit"] is None else percent(row["fraction_of_limit"])
            table.add_row(f"  {row['backend']}", *cells, share)
    out.print(table)
    for line in document["depth_lines"]:
        fixed, loop = line["fixed"]["median"], line["per_loop"]["median"]
        text = f"{line['calls']}, {line['backend']}: {seconds(fixed)} and {seconds(loop)} per loop"
        out.print(text, highlight=False, style="dim")
    for contestant in document["contestants"]:
        if contestant["state"] != "measured":
            out.print(f"{contestant['name'].rpartition(':')[2]}: {contestant['reason']}", style="yellow", markup=False)
        for workload, reason in contestant["failed_workloads"].items():
            out.print(f"{contestant['name']}, {workload}: {reason}", style="yellow", markup=False)
    out.print(document["verdict"], style="bold", highlight=False)


def _show_changes(a: Path, b: Path, as_json: bool) -> None:
    from mythos_export.bench.compare import ABSENT, FASTER, SAME, SLOWER, changes_json, compare
    from mythos_export.bench.report import read_report
    from mythos_export.report.format import seconds

    changes = compare(read_report(a), read_report(b))
    table = Table("workload", "with", "A", "B", "B / A", "interval", "")
    for change in changes:
        if change.verdict not in (FASTER, SLOWER):
            continue
        assert change.before and change.after and change.ratio and change.low and change.high
        between = f"{change.low:.2f} to {change.high:.2f}"
        times = (seconds(change.before), seconds(change.after), f"{change.ratio:.2f}", between)
        table.add_row(change.workload, change.backend, *times, change.verdict)
    changed = table.row_count
    if changed:
        out.print(table)
    same = sum(change.verdict == SAME for change in changes)
    absent = sum(change.verdict == ABSENT for change in changes)
    untold = len(changes) - changed - same - absent
    text = f"{changed} changed beyond noise, {same} did not, {absent} are in one report only"
    if untold:
        text += f"; of {untold} nothing can be told: fewer than 5 rounds, or another number of loops ran"
    out.print(f"{text}.", highlight=False)
    if as_json:
        write(json.dumps(changes_json(changes)) + "\n")
