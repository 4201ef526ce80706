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
@click.option("--model", "models", multiple=True, type=click.Choice(list(TOKENIZERS)), default=list(TOKENIZERS))
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Of each run.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("build/serving/reports"), show_default=True)
def main(bundles: Path, models: tuple[str, ...], seconds: float, out: Path) -> None:
    console = Console(stderr=True)
    found = {model: bundle_of(model, bundles) for model in models}
    machine = describe_machine(1, usable_cores())
    mixes = measure(found, seconds, lambda words: console.print(words, style="dim", highlight=False))
    document = {
        "machine": machine,
        "date": datetime.date.today().isoformat(),
        "seconds": seconds,
        "mixes": mixes,
    }
    page = report.write(document, out)
    for mix in mixes:
        console.print(f"{mix['name']}: {report._summary(mix)}", highlight=False, soft_wrap=True)
    click.echo(json.dumps({"report": str(page)}))


if __name__ == "__main__":
    main()
