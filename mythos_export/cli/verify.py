"""`mythos verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mythos_export.cli.show import show_parity
from mythos_export.cli.terminal import plain_errors, steps
from mythos_runtime.manifest import read_manifest


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def verify(bundle: Path, threads: int | None, as_json: bool) -> None:
    """Run the golden cases of a BUNDLE on this machine and compare with the eager model's answers."""
    with plain_errors():
        from mythos_export.verify import verify_bundle

        manifest = read_manifest(bundle)
        with steps() as step:
            parity = verify_bundle(bundle, manifest, step, threads)
        show_parity(parity)
        if as_json:
            click.echo(json.dumps(parity.to_json()))
        parity.raise_unless_passed()
