"""What `--precision auto` makes of the trained models that ship here: bytes of weights against the bound on nats.

    python -m benchmarks.mixes [-o benchmarks/results]   # mixes.json; the table of docs/weight-formats.md

On the models' held-out ids, with PyTorch: nothing is timed, and the same comes out on every machine, but for the last
digits of the divergence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mythos_export.mix import choose_mix, divergence
from mythos_model import load_checkpoint
from mythos_model.pretrained import folder
from mythos_runtime.manifest import FORMATS

MODELS = ("hops", "text")
BOUNDS = (1e-4, 1e-3, 1e-2, 1e-1)  # nats per token
NAME = "mixes.json"


def document_of(models: tuple[str, ...] = MODELS, bounds: tuple[float, ...] = BOUNDS) -> dict[str, Any]:
    """By model, what every group in one format costs, and what is chosen at each bound."""
    document: dict[str, Any] = {}
    for name in models:
        checkpoint, cases = load_checkpoint(folder(name)), folder(name) / "held_out.safetensors"
        document[name] = {
            "all": {form: divergence(checkpoint, form, cases) for form in FORMATS},
            "mixes": [choose_mix(checkpoint, bound, cases).to_json() for bound in bounds],
        }
    return document


def table(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    lines = ["| | at most | measured | weights | formats |", "|---|---|---|---|---|"]
    for name, model in document.items():
        for mix in model["mixes"]:
            size = f"{mix['bytes'] / 1e6:.3f} of {mix['plain_bytes'] / 1e6:.3f} MB"
            by_format = {form: [g for g, each in mix["formats"].items() if each == form] for form in FORMATS}
            formats = "; ".join(f"{form}: {', '.join(groups)}" for form, groups in by_format.items() if groups)
            lines.append(f"| {name} | {mix['max_kl']:g} | {mix['kl']:.2g} | {size} | {formats} |")
        for form, (kl, size) in model["all"].items():
            lines.append(f"| {name} | `--precision {form}` | {kl:.2g} | {size / 1e6:.3f} MB | {form}: every group |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
def main(output: Path) -> None:
    document = document_of()
    output.mkdir(parents=True, exist_ok=True)
    (output / NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document))


if __name__ == "__main__":
    main()
