"""Writes the tables of README.md and docs/ that are made of committed reports: `python -m benchmarks.tables`.

Between marks such as `<!-- latency: begin -->` and `<!-- latency: end -->`; with --check it only says whether they are
current (exit code 1 where they are not). No figure there is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import cache_times, caches, mixes, quantization, rounded_products_table
from benchmarks.real_size import openmythos_table
from benchmarks.real_size import table as real_size
from mythos_export.bench.report import read_report
from mythos_export.report.format import percent, seconds

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TITLES = {"hops": "The demo model", "wide": "The 512-wide model, random weights"}
# Of the README's short table: everybody who kept the loop's depth open, and the reference.
SHOWN = {
    "ONNX Runtime, CPU kernels, int8 weights": "**mythos-export, int8**",
    "ONNX Runtime, CPU kernels, int4 weights": "**mythos-export, int4**",
    "ONNX Runtime, CPU kernels": "**mythos-export, float32**",
    "OpenVINO": "OpenVINO",
    "AOTInductor": "AOTInductor",
    "torch.onnx.export + ONNX Runtime": "torch.onnx.export + ONNX Runtime",
    "torch.compile": "torch.compile",
    "reference in eager PyTorch": "reference code in eager PyTorch",
}


def tables(results: Path = RESULTS) -> str:
    """Of the page on performance: everybody, with intervals."""
    peers = {name: read_report(results / "peers" / name) for name in TITLES}
    parts = [_about(next(iter(peers.values())))]
    parts += [_peers(name, document) for name, document in peers.items()]
    parts.append(_absent(peers))
    context = results / "latency" / "wide"
    if context.is_dir():
        parts.append(_context(read_report(context)))
    return "\n\n".join(part for part in parts if part)


def _about(document: dict[str, Any]) -> str:
    machine = document["machine"]
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return (
        f"{machine['cpu']}, {threads}, float32 where no other weights are named, {machine['at'][:10]}; medians of "
        f"{document['method']['rounds']} rounds with their intervals; “of the limit” is how near a call comes to what "
        f"this machine read or multiplied at best in the same minutes (`{document['command']}`)."
    )


def _peers(name: str, document: dict[str, Any]) -> str:
    workloads = list(dict.fromkeys(row["workload"] for row in document["rows"]))
    contestants = [c["name"] for c in document["contestants"] if c["state"] == "measured"]
    rows = {(row["workload"], row["backend"]): row for row in document["rows"]}
    link = f"../benchmarks/results/peers/{name}/latency.json"
    noise = document["noise"]
    quiet = "" if noise["quiet"] else f" The machine was not quiet: {'; '.join(noise['reasons'])}."
    lines = [f"{TITLES[name]} ([all figures]({link})).{quiet}", ""]
    lines += [f"| | {' | '.join(workloads)} |", "|---|" + "---|" * len(workloads)]
    order = sorted(contestants, key=lambda c: rows[workloads[0], c]["median"] if (workloads[0], c) in rows else 1e9)
    for contestant in order:
        cells = [_cell(rows.get((workload, contestant))) for workload in workloads]
        lines.append(f"| {contestant} | {' | '.join(cells)} |")
    lines += [""] + failed if (failed := list(_failed(document))) else []
    return "\n".join(lines)


def _failed(document: dict[str, Any]) -> Iterator[str]:
    """A sentence for everybody who took part and gave no time, with the first reason."""
    for contestant in document["contestants"]:
        for workload, reason in list(contestant.get("failed_workloads", {}).items())[:1]:
            yield f"{contestant['name']} failed ({workload}: {reason})."


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "failed"
    interval = f"{seconds(row['interval']['low'])} to {seconds(row['interval']['high'])}"
    share = row["fraction_of_limit"]
    return f"{seconds(row['median'])} ({interval})" + ("" if share is None else f", {percent(share)} of the limit")


def _median(row: dict[str, Any] | None) -> str:
    return "failed" if row is None else seconds(row["median"])


def _absent(documents: dict[str, dict[str, Any]]) -> str:
    """Who took no part, once, with the reason."""
    absent: dict[tuple[str, str], list[str]] = {}
    for model, document in documents.items():
        for contestant in document["contestants"]:
            if contestant["state"] != "measured":
                key = (contestant["name"].rpartition(":")[2], contestant["reason"])
                absent.setdefault(key, []).append(TITLES[model].partition(",")[0].lower())
    return " ".join(
        f"Not measured: {name}{'' if len(models) == len(documents) else f' for {models[0]}'} ({reason})."
        for (name, reason), models in absent.items()
    )


def _context(document: dict[str, Any]) -> str:
    """What a token costs as the context grows, batch 1 at the trained depth."""
    trained = document["model"]["trained_loops"]
    decode = [w for w in document["workloads"] if (w["kind"], w["batch"], w["depth"]) == ("decode", 1, trained)]
    decode.sort(key=lambda w: w["held"])
    names = [c["name"] for c in document["contestants"] if c["state"] == "measured"]
    rows = {(row["workload"], row["backend"]): row for row in document["rows"]}
    capacity = max(w["held"] for w in decode) + 1
    lines = [
        f"A token as the context grows, in a cache of {capacity} tokens: only what is filled is read "
        "([all figures](../benchmarks/results/latency/wide/latency.json)).",
        "",
        f"| tokens held | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    for workload in decode:
        cells = [_median(rows.get((workload["name"], name))) for name in names]
        lines.append(f"| {workload['held']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def short(results: Path = RESULTS) -> str:
    """Of the README: a token and a prompt of the 512-wide model."""
    document = read_report(results / "peers" / "wide")
    decode, _, prefill = dict.fromkeys(row["workload"] for row in document["rows"])
    rows = {(row["workload"], row["backend"]): row for row in document["rows"]}
    machine = document["machine"]
    noise = "" if document["noise"]["quiet"] else ", on a machine that was not quiet"
    lines = [
        "A looped model, 512 wide, 8 loops, random weights; "
        f"{machine['cpu']}, one thread, {machine['at'][:10]}{noise}; medians (`{document['command']}`):",
        "",
        "| | a token behind 128 | a prompt of 128 |",
        "|---|---|---|",
    ]
    for name, said in SHOWN.items():
        if (decode, name) not in rows and (prefill, name) not in rows:
            continue  # the page on performance says why
        lines.append(f"| {said} | {_median(rows.get((decode, name)))} | {_median(rows.get((prefill, name)))} |")
    return "\n".join(lines)


def rounding(results: Path = RESULTS) -> str:
    """Of the page on weight formats."""
    return quantization.table(json.loads((results / quantization.NAME).read_text(encoding="utf-8")))


def chosen(results: Path = RESULTS) -> str:
    """Of the same page: mixes of formats."""
    return mixes.table(json.loads((results / mixes.NAME).read_text(encoding="utf-8")))


def kept(results: Path = RESULTS) -> str:
    """Of the same page: int8 caches."""
    return caches.table(json.loads((results / caches.NAME).read_text(encoding="utf-8")))


def cache_reading(results: Path = RESULTS) -> str:
    """Of the same page: what reading int8 caches takes."""
    return cache_times.table(json.loads((results / cache_times.NAME).read_text(encoding="utf-8")))


def at_real_size(results: Path = RESULTS) -> str:
    """Of the page on performance: a real size beside llama.cpp."""
    return real_size.table(json.loads((results / real_size.NAME).read_text(encoding="utf-8")))


def at_1b(results: Path = RESULTS) -> str:
    """Of the same page: OpenMythos 1b beside the reference and llama.cpp."""
    return openmythos_table.table(json.loads((results / openmythos_table.NAME).read_text(encoding="utf-8")))


def products(results: Path = RESULTS) -> str:
    """Of the page on weight formats: single products, and OpenVINO's."""
    return rounded_products_table.table(results / rounded_products_table.FOLDER)


# What stands between which marks of which page.
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"speed": short},
    "docs/performance.md": {"latency": tables, "real size": at_real_size, "1b": at_1b},
    "docs/weight-formats.md": {
        "quantization": rounding,
        "products": products,
        "mixes": chosen,
        "caches": kept,
        "cache times": cache_reading,
    },
}


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of that name."""
    begin_mark, end_mark = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, begin, rest = page.partition(begin_mark)
    _, end, tail = rest.partition(end_mark)
    if not begin or not end:
        sys.exit(f"the page lacks the marks {begin_mark} and {end_mark}")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def current(page: str) -> tuple[str, str]:
    """A page as it is, and as the reports want it."""
    now = wanted = (ROOT / page).read_text(encoding="utf-8")
    for name, text in PAGES[page].items():
        wanted = replaced(wanted, name, text())
    return now, wanted


def main() -> None:
    """Write, or with --check compare."""
    for page in PAGES:
        now, wanted = current(page)
        if "--check" not in sys.argv[1:]:
            (ROOT / page).write_text(wanted, encoding="utf-8")
        elif now != wanted:
            sys.exit(f"{page} is not current: python -m benchmarks.tables")


if __name__ == "__main__":
    main()
