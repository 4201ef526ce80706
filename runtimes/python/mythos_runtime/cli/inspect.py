"""`mythos inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mythos_runtime.cli.options import verify_option
from mythos_runtime.cli.show import show_bundle
from mythos_runtime.cli.terminal import Command, examples, write
from mythos_runtime.manifest import read_manifest


@click.command(
    cls=Command,
    short_help="Show what a BUNDLE holds and how far it was checked.",
    epilog=examples("mythos inspect BUNDLE", "mythos inspect BUNDLE --json | jq .targets"),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@verify_option
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as one line of JSON.")
def inspect(bundle: Path, verify: str, as_json: bool) -> None:
    """Show what a BUNDLE holds, where it came from and how far it was checked."""
    manifest = read_manifest(bundle, verify_hashes=verify == "hashes")
    if as_json:
        write(json.dumps(manifest.to_json()) + "\n")
    else:
        show_bundle(bundle, manifest)
