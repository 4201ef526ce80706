"""A latency document as files: `latency.json`, and `latency.html` for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mythos_export.bench.backends import BACKENDS
from mythos_export.bench.document import FORMAT, VERSION
from mythos_export.bench.plots import breakdown_bars, contestant_bars, depth_plot
from mythos_export.bench.verdict import headline, main_workload
from mythos_export.errors import BenchError
from mythos_export.report import write_json, write_page
from mythos_runtime.outputs import writing

JSON_NAME, PAGE_NAME = "latency.json", "latency.html"
PARITY_NAME, INDEX_NAME = "parity.html", "index.html"  # the pages of the export, in the same folder


def write_report(document: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write both files into a folder, which is made where it is not there; returns their paths (JSON, page).

    Raises:
        StorageError, RequestError: the folder cannot be written to.
    """
    with writing(folder, "-o"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / JSON_NAME, document)
        page = write_page(folder / PAGE_NAME, "latency.html.j2", **page_values(document, folder))
    return folder / JSON_NAME, page


def read_report(path: Path) -> dict[str, Any]:
    """A document from its file, or from the folder that holds it. Raises BenchError where it is none."""
    file = path / JSON_NAME if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read the report {file}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise BenchError(f"{file} is not a latency report of version {VERSION}; make one with mythos bench")
    return document


def page_values(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the template shows; `folder` is where the page will be."""
    main = [name for kind in ("decode", "prefill") if (name := main_workload(document, kind))]
    ours = {c["name"] for c in document["contestants"] if c["source"] in BACKENDS.values()}
    bars = [
        (name, contestant_bars([row for row in document["rows"] if row["workload"] == name], ours, name))
        for name in main
    ]
    prompts = [name for c in document["contestants"] for name in c.get("first_token_seconds", {})]
    return {
        "document": document,
        "headline": headline(document),
        "parity": PARITY_NAME if (folder / PARITY_NAME).is_file() else None,
        "index": (folder / INDEX_NAME).is_file(),
        "first_prompt": next(iter(prompts), None),
        "bars": bars,
        "depth_plots": _depth_plots(document),
        "breakdowns": breakdown_bars(document["breakdown"]) if document["breakdown"] else None,
        "sections": [(kind, _section(document, kind)) for kind in ("decode", "prefill")],
    }


def _depth_plots(document: dict[str, Any]) -> list[tuple[str, Any, list[dict[str, Any]]]]:
    calls = dict.fromkeys(line["calls"] for line in document["depth_lines"])
    found = []
    for name in calls:
        lines = [line for line in document["depth_lines"] if line["calls"] == name]
        found.append((name, depth_plot(lines, name), lines))
    return found


def _section(document: dict[str, Any], kind: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of one kind of workload, those of a workload together, the fastest first."""
    groups = []
    for workload in document["workloads"]:
        rows = [row for row in document["rows"] if row["workload"] == workload["name"]]
        if workload["kind"] == kind and rows:
            groups.append((workload["name"], sorted(rows, key=lambda row: row["median"])))
    return groups
