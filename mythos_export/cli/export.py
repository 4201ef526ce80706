"""`mythos-export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mythos_export.cli.show import show_parity
from mythos_runtime.cli.generation import id_list
from mythos_runtime.cli.progress import steps
from mythos_runtime.cli.show import show_bundle
from mythos_runtime.cli.terminal import Command, out, write


class Export(Command):
    interrupted = "interrupted; no bundle was written"


@click.command(cls=Export)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--target", type=click.Choice(["onnx", "tensorrt"]), default="onnx", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's folder [default: NAME-TARGET].")
@click.option("--config", type=click.Path(path_type=Path), help="JSON with the model's fields, or some of them.")
@click.option("--variant", help="A named variant: 1b, 3b, 10b, 50b, 100b, 500b, 1t.")
@click.option("--weights-key", help="Which of several sets of weights in the file, such as ema; '.': those at the top.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "int4"]),
    help="int8 and int4: block-wise weights, the rest float32; onnx only. Default: onnx fp32, tensorrt fp16.",
)
@click.option("--sm", help="tensorrt: compute capabilities, such as 86,89 [default: 86,89,120].")
@click.option("--batch", help="tensorrt: range min:opt:max.")
@click.option("--tokens", help="tensorrt: range of new tokens, min:opt:max.")
@click.option("--context", help="tensorrt: range of cached tokens, min:opt:max.")
@click.option("--plugins", is_flag=True, help="tensorrt: operators as plug-ins with Triton kernels (experimental).")
@click.option("--tokenizer", help="A tokenizer.json, 'bytes', or 'none' [default: the one beside the weights].")
@click.option(
    "--eos", help="Ids that end a generation, such as 2 or 0,2 [default: as the files beside the weights say]."
)
@click.option("--cases", type=click.Path(path_type=Path), help="Safetensors file with input_ids [n, T] to verify with.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def export_command(
    checkpoint: Path, target: str, output: Path | None, eos: str | None, as_json: bool, **options: Any
) -> None:
    """Export an OpenMythos CHECKPOINT as a verified bundle with its recurrent loop intact."""
    if options["config"] is not None and options["variant"] is not None:
        raise click.UsageError("--config and --variant both name the model's configuration: give one of them")
    ends = None if eos is None else id_list("--eos", eos)
    from mythos_export import export  # imports torch: seconds that --help need not spend
    from mythos_export.verify.parity import summary

    destination = output or Path(f"{checkpoint.stem or checkpoint.name}-{target}")
    with steps() as step:
        exported = export(checkpoint, destination, target, eos=ends, progress=step, **options)
    show_parity(exported.parity)
    show_bundle(exported.path, exported.manifest)
    page = exported.path / "reports" / "parity.html"
    out.print(f"What was compared, to read: {page}", highlight=False, soft_wrap=True)
    if as_json:
        document = {
            "bundle": str(exported.path),
            "targets": {t.name: t.state for t in exported.manifest.targets},
            "precision": exported.manifest.precision,
            "parity": summary(exported.parity),
        }
        write(json.dumps(document) + "\n")
