"""`mythos inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mythos_export.cli.show import show_bundle
from mythos_export.cli.terminal import plain_errors
from mythos_runtime.manifest import read_manifest


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as one line of JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a BUNDLE holds, where it came from and how far it was checked."""
    with plain_errors():
        manifest = read_manifest(bundle)
        if not as_json:
            show_bundle(bundle, manifest)
        else:
            click.echo(json.dumps(manifest.to_json()))
