"""`mythos package`: a bundle in the forms that other servers take."""

from __future__ import annotations

from pathlib import Path

import click

from mythos_runtime.cli.serve import Size
from mythos_runtime.cli.terminal import Command, Group, write


@click.group(cls=Group)
def package() -> None:
    """Put a bundle into the form that another server takes."""


@package.command("triton-model-repository", cls=Command)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--name", help="Of the model.  [default: the bundle's folder]")
@click.option("--memory", type=Size(), default="1GiB", show_default=True, help="For caches and states.")
@click.option("--max-running", type=click.IntRange(1), default=64, show_default=True, help="Requests run at a time.")
@click.option("--max-queue", type=click.IntRange(0), default=256, show_default=True, help="Requests that may wait.")
@click.option("--most-loops", type=click.IntRange(1), help="That a request may ask for.  [default: as trained]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: ONNX Runtime's choice]")
def triton_model_repository(
    bundle: Path,
    out: Path,
    name: str | None,
    memory: int,
    max_running: int,
    max_queue: int,
    most_loops: int | None,
    threads: int | None,
) -> None:
    """Write BUNDLE into the model repository OUT of Triton Inference Server: Python backend, a response per token.

    The backend's Python needs mythos-runtime[serve].
    """
    from mythos_runtime.engine.opening import check_rows
    from mythos_runtime.manifest import read_manifest
    from mythos_runtime.server.triton_repository import write_repository

    manifest = read_manifest(bundle)
    check_rows(bundle, manifest)
    parameters = {
        "memory": memory,
        "max_running": max_running,
        "max_queue": max_queue,
        "most_loops": most_loops,
        "threads": threads,
    }
    write(f"{write_repository(bundle, manifest, out, name or bundle.resolve().name, parameters)}\n")
