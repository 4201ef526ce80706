"""Load against `mythos serve`, halting by itself beside every loop forced: `python -m benchmarks.serving -o FOLDER`.

Exports the shipped models where the folder --bundles does not hold them yet. Writes serving.json and serving.html.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import click
from rich.console import Console

from benchmarks.serving import report
from benchmarks.serving.measure import measure
from benchmarks.serving.mixes import MIXES
from mythos_export import export
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_model.pretrained import folder

TOKENIZERS = {"text": "bytes", "hops": None}


def bundle_of(model: str, place: Path) -> Path:
    """A shipped model's bundle, exported where it is not there."""
    path = place / model
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        export(folder(model), path, target="onnx", tokenizer=TOKENIZERS[model])
    return path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("build/serving"), show_default=True)
@click.option(
    "--mix",
    "names",
    multiple=True,
    type=click.Choice([mix.name for mix in MIXES]),
    help="These alone; what the report has of others stays.",
)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Of each run.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("build/serving/reports"), show_default=True)
def main(bundles: Path, names: tuple[str, ...], seconds: float, out: Path) -> None:
    console = Console(stderr=True)
    chosen = [mix for mix in MIXES if not names or mix.name in names]
    found = {mix.model: bundle_of(mix.model, bundles) for mix in chosen}
    machine = describe_machine(1, usable_cores())
    measured = measure(chosen, found, seconds, lambda words: console.print(words, style="dim", highlight=False))
    before = json.loads((out / "serving.json").read_text(encoding="utf-8"))["mixes"] if names else []
    known = {mix["name"]: mix for mix in (*before, *measured)}
    document = {
        "machine": machine,
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "mixes": [known[mix.name] for mix in MIXES if mix.name in known],
    }
    page = report.write(document, out)
    for each in measured:
        console.print(f"{each['name']}: {report.summary(each)}", highlight=False, soft_wrap=True)
    click.echo(json.dumps({"report": str(page)}))


if __name__ == "__main__":
    main()
