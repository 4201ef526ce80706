"""`mythos run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mythos_export.cli.terminal import out, plain_errors


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--prompt", help="Text to go on from (bundles with a tokenizer).")
@click.option("--ids", help="Token ids to go on from, such as 1,2,3.")
@click.option("--max-new-tokens", type=int, default=64, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: greedy.")
@click.option("--top-k", type=int, default=0, help="0: off.")
@click.option("--top-p", type=float, default=1.0, help="1: off.")
@click.option("--min-p", type=float, default=0.0, help="0: off.")
@click.option("--repetition-penalty", type=float, default=1.0, help="1: off.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--eos", type=int, help="Id that ends the text.")
@click.option("--stop", multiple=True, help="Ids in a row that end the text, such as 4,5; may be repeated.")
@click.option("--max-loops", type=int, help="Default: as trained.")
@click.option("--halt-threshold", type=float, help="Default: as trained.")
@click.option("--policy", type=click.Choice(["full", "last"]), default="full", show_default=True)
@click.option("--backend", type=click.Choice(["onnxruntime", "tensorrt", "eager"]))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def run(
    bundle: Path, prompt: str | None, ids: str | None, stop: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Generate with a BUNDLE: streams text where it has a tokenizer, ids otherwise."""
    with plain_errors():
        from mythos_export.run import id_list, parse_ids, stream
        from mythos_runtime import load

        model = load(bundle, backend=options.pop("backend"), threads=options.pop("threads"))
        start = parse_ids(model, prompt, ids)
        stops = [id_list("--stop", text) for text in stop]
        result = stream(model, start, click.echo, stop=stops, **options)
        out.print(result.summary(), highlight=False)
        if as_json:
            click.echo(json.dumps(result.to_json()))
