"""The table of docs/weight-formats.md that `python -m benchmarks.rounded_products` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = "rounded_products"  # in benchmarks/results
SAID = {
    "plain": "float32",
    "int8": "int8",
    "int4": "int4",
    "int8a8": "int8, `--activations int8`",
    "int4a8": "int4, `--activations int8`",
}
COLUMNS = {"AVX2": "avx2-1", "VNNI": "avx512vnni-1", "VNNI, two threads": "avx512vnni-2"}
LINES = ("1 rows", "128 rows")


def table(folder: Path) -> str:
    """Milliseconds of every form; where OpenVINO took part, its own behind a stroke."""
    found = {said: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for said, name in COLUMNS.items()}
    machine = found["VNNI"]["machine"]
    heads = [f"{'one row' if lines == '1 rows' else '128 rows'}, {said}" for lines in LINES for said in COLUMNS]
    rows = [
        f"{machine['cpu']}, {machine['at'][:10]}, milliseconds; behind a stroke OpenVINO's, with instructions of its "
        f"own choice ([all figures](../benchmarks/results/{FOLDER}), `python -m benchmarks.rounded_products`):",
        "",
        f"| | {' | '.join(heads)} |",
        "|---|" + "---|" * len(heads),
    ]
    for form, said in SAID.items():
        cells = [_cell(found[column][lines], form) for lines in LINES for column in COLUMNS]
        rows.append(f"| {said} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(measured: dict[str, Any], form: str) -> str:
    theirs = measured.get(f"OpenVINO {'float32' if form == 'plain' else form}")
    ours = f"{measured[form]['ms']:.2f}"
    return ours if theirs is None else f"{ours} / {theirs['ms']:.2f}"
