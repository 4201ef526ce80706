"""`mythos package`: a bundle in the forms that other servers take, or compiled for one machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mythos_runtime.cli.serve import MEMORY, Size
from mythos_runtime.cli.terminal import Command, Group, detail, examples, write


@click.group(
    cls=Group,
    short_help="Put a BUNDLE into the form that another server takes.",
    epilog=examples("mythos package triton-model-repository BUNDLE models/", "mythos package aoti BUNDLE compiled/"),
)
def package() -> None:
    """Put a bundle into the form that another server takes, or compile it for this machine."""


@package.command(
    "triton-model-repository",
    cls=Command,
    short_help="For Triton Inference Server.",
    epilog=examples("mythos package triton-model-repository BUNDLE models/ --name text"),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--name", help="Of the model.  [default: the bundle's folder]")
@click.option("--memory", type=Size(), default="1GiB", show_default=True, help=MEMORY)
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
    from mythos_runtime.engine.bundled import check_rows
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
    write(f"{write_repository(bundle, manifest, out, bundle.resolve().name if name is None else name, parameters)}\n")


@package.command(
    "aoti",
    cls=Command,
    short_help="Compiled ahead of time for this machine.",
    epilog=examples(
        "mythos package aoti BUNDLE compiled/ --provider cpu",
        "MYTHOS_AOTI=compiled mythos run BUNDLE --backend eager --prompt 'Once upon a time'",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="PyTorch's device.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: PyTorch's choice]")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def aoti(bundle: Path, out: Path, provider: str, threads: int | None, as_json: bool) -> None:
    """Compile the row graphs of BUNDLE (of --target cuda) into the folder OUT, ahead of time, by PyTorch's AOTInductor.

    OUT is for this machine's device and PyTorch, and weights stay in BUNDLE. MYTHOS_AOTI=OUT makes the backend eager
    run it. What was compiled is run here and held to the bundle's own graphs: logits at the trained depth, and where
    positions halt by themselves; on a GPU nobody has done so yet.
    """
    from mythos_runtime.engine.bundled import check_device_rows
    from mythos_runtime.engine.device.compiled import VARIABLE, compile_rows
    from mythos_runtime.manifest import read_manifest
    from mythos_runtime.outputs import check_folder_place
    from mythos_runtime.session import Options
    from mythos_runtime.torch_device import open_device

    check_folder_place(out, "OUT")
    manifest = read_manifest(bundle)
    check_device_rows(bundle, manifest)
    device = open_device(bundle, Options(threads, provider=provider))
    described = compile_rows(bundle, manifest, device, out, detail)
    compared = described["compared"]
    halting = ""
    if "positions" in compared:
        left_out = compared["near_ties_left_out"]
        behind = f"; {left_out} more are at or behind one that a rounding may turn" if left_out else ""
        halting = f"; {compared['positions']} positions halt after as many loops{behind}"
    elif "thresholds" in compared:
        halting = "; no position halts before the last loop, so where positions halt was not compared"
    write(
        f"{out}: compiled for {described['device']} by torch {described['torch']}; logits of "
        f"{compared['tokens']} tokens within {compared['largest_distance']:.1g} of those of {bundle}{halting}\n"
        f"{VARIABLE}={out} mythos run {bundle} --backend eager\n"
    )
    if as_json:
        write(json.dumps(described) + "\n")
