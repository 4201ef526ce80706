"""`mythos-export`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mythos_export.cli.show import show_parity
from mythos_export.cli.termination import terminable
from mythos_export.targets.registry import TARGETS
from mythos_runtime.cli.generation import id_list
from mythos_runtime.cli.progress import steps
from mythos_runtime.cli.show import show_bundle
from mythos_runtime.cli.terminal import Command, examples, out, write


class Export(Command):
    interrupted = "interrupted; no bundle was written"


def _list_families(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from mythos_model.families import FAMILIES

    for family in FAMILIES:
        field = "model_type" if family.model_types else "_class_name"
        named = " or ".join(family.model_types or family.class_names)
        variants = f"; variants {', '.join(family.variants)}" if family.variants else ""
        marks = f", or tensors like {family.marks[0]}" if family.distinct else ""
        write(f"{family.name}: {field} {named}{marks}{variants}\n")
    context.exit()


@click.command(
    cls=Export,
    epilog=examples(
        "mythos-export CHECKPOINT -o BUNDLE",
        "mythos-export CHECKPOINT --target cuda --precision int8 --verify twin",
    ),
)
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("--target", help=f"{' or '.join(TARGETS)}.", default="onnx", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's folder [default: NAME-TARGET].")
@click.option("--config", type=click.Path(path_type=Path), help="JSON with the model's fields, or some of them.")
@click.option("--variant", help="A named variant: 1b, 3b, 10b, 50b, 100b, 500b, 1t.")
@click.option("--exit", "exit_rule", help="An exit rule of the family that is not its usual one, as its card says.")
@click.option("--weights-key", help="Which of several sets of weights in the file, such as ema; '.': those at the top.")
@click.option(
    "--precision",
    metavar="[fp32|fp16|int8|int4|int8a8|int4a8|fp8|auto]",
    help="int8 and int4: block-wise weights, the rest float32; onnx and cuda. int8a8 and int4a8: the same with "
    "--activations int8; onnx. fp8: e4m3 weights with a scale for each "
    "row; cuda, from SM 89 on. auto: a format for each group of matrices, the smallest within --max-kl; onnx. "
    "Default: onnx fp32, the others fp16.",
)
@click.option(
    "--max-kl",
    type=float,
    help="With --precision auto: how far the next token's distribution may be from the float32 model's, in nats per "
    "token, on the ids of --cases [default: drawn ids].",
)
@click.option(
    "--activations",
    type=click.Choice(["fp32", "int8"]),
    help="What int8 and int4 weights are multiplied by: float32, or int8 in blocks, which is faster, loses a little "
    "and lets inner values be checked less tightly; onnx only. [default: fp32]",
)
@click.option(
    "--cache",
    type=click.Choice(["fp32", "int8"]),
    help="What a cache keeps of a token: float32, or int8 with a scale for each of its vectors, which takes a quarter "
    "of the memory and loses a little; onnx, cuda, precisions that compute in float32, not with --activations int8. "
    "[default: as the precision computes]",
)
@click.option(
    "--sm", help="tensorrt, cuda: compute capabilities, such as 86,89 [default: 86,89,120; 80,90, of fp8 89,90]."
)
@click.option("--batch", help="tensorrt: range min:opt:max.")
@click.option("--tokens", help="tensorrt: range of new tokens, min:opt:max.")
@click.option("--context", help="tensorrt: range of cached tokens, min:opt:max.")
@click.option("--plugins", is_flag=True, help="tensorrt: operators as plug-ins with Triton kernels (experimental).")
@click.option("--rows", is_flag=True, help="tensorrt: engines of the row graphs, too; nothing runs them yet.")
@click.option(
    "--expert-shards",
    type=click.IntRange(1),
    help="onnx: the experts in so many shards, for as many processes of one machine or several.",
)
@click.option("--tokenizer", help="A tokenizer.json, 'bytes', or 'none' [default: the one beside the weights].")
@click.option(
    "--eos", help="Ids that end a generation, such as 2 or 0,2 [default: as the files beside the weights say]."
)
@click.option("--cases", type=click.Path(path_type=Path), help="Safetensors file with input_ids [n, T] to verify with.")
@click.option("--parts", help="Kept beside what runs: of program,golden,reports, or none [default: all].")
@click.option(
    "--verify",
    "verification",
    type=click.Choice(["full", "twin", "later"]),
    help="twin: all cases on a reduced twin on the same weights, a few on the model itself; later: leave a bundle that "
    "says that it is not verified. [default: full; twin from 268 million weights on, or where memory is short]",
)
@click.option(
    "--graph-only",
    is_flag=True,
    help="Write the graphs alone, checked for their form and not executed, with references into the CHECKPOINT's own "
    "files; without one, of a --variant or --config, into files that are still to be written.",
)
@click.option(
    "--weights",
    type=click.Choice(["copy", "link"]),
    help="A copy in the bundle, or what is in the checkpoint's own files, which then have to stay where and as they "
    "are: onnx, fp32 and fp16. [default: copy]",
)
@click.option("--dump-passes", type=click.Path(path_type=Path), help="Write the graph before and after each pass here.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there; anything else never is.")
@click.option(
    "--list-families",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_families,
    help="Say which models are taken, and end.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def export_command(
    checkpoint: Path | None,
    target: str,
    output: Path | None,
    eos: str | None,
    parts: str | None,
    graph_only: bool,
    weights: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Export the CHECKPOINT of a looped model as a verified bundle with its recurrent loop intact."""
    if options["config"] is not None and options["variant"] is not None:
        raise click.UsageError("--config and --variant both name the model's configuration: give one of them")
    if graph_only:
        _graphs(checkpoint, output, {"eos": eos, "parts": parts, **options}, weights, as_json)
        return
    if checkpoint is None:
        raise click.UsageError("Missing argument 'CHECKPOINT'.")
    ends = None if eos is None else id_list("--eos", eos)
    from mythos_export import export  # imports torch: seconds that --help need not spend
    from mythos_export.verify.parity import summary

    destination = output or Path(f"{_name(checkpoint)}-{target}")
    with terminable("terminated; no bundle was written"), steps() as step:
        options |= {"parts": _names(parts), "weights": weights or "copy"}
        exported = export(checkpoint, destination, target, eos=ends, progress=step, **options)
    if exported.parity is not None:
        show_parity(exported.parity)
    show_bundle(exported.path, exported.manifest)
    if exported.mix is not None:
        out.print(exported.mix.sentence(), markup=False, highlight=False, soft_wrap=True)
    page = "reports/parity.html"
    if page in exported.manifest.files:
        out.print(f"What was compared, to read: {exported.path / page}", highlight=False, soft_wrap=True)
    if as_json:
        document = {
            "bundle": str(exported.path),
            "targets": {t.name: t.state for t in exported.manifest.targets},
            "precision": exported.manifest.precision,
            "mix": None if exported.mix is None else exported.mix.to_json(),
            "parity": None if exported.parity is None else summary(exported.parity),
        }
        write(json.dumps(document) + "\n")


def _graphs(
    checkpoint: Path | None, output: Path | None, options: Mapping[str, Any], weights: str | None, as_json: bool
) -> None:
    """--graph-only."""
    meant = ("config", "variant", "weights_key", "exit_rule", "precision")
    known = {option.name: option.opts[-1] for option in click.get_current_context().command.params}
    for name, value in options.items():
        if name not in meant and value and (name, value) != ("target", "onnx"):
            raise click.UsageError(f"{known[name]} means nothing to --graph-only")
    if weights == "copy":
        raise click.UsageError("--weights copy means nothing to --graph-only, whose graphs come without weights")
    from mythos_export.graph_only import STATE, export_graphs  # imports torch

    given = {name: options[name] for name in meant}
    given["precision"] = given["precision"] or "fp32"
    name = options["variant"] or "model" if checkpoint is None else _name(checkpoint)
    with terminable("terminated; nothing was written"), steps() as step:
        told = export_graphs(checkpoint, output or Path(f"{name}-graphs"), progress=step, **given)
    out.print(f"{told.path}: {', '.join(told.graphs)}; {STATE}", highlight=False, soft_wrap=True)
    absent = f", {told.absent} of them absent" if told.absent else ""
    out.print(
        f"{told.tensors} tensors, {told.bytes / 1e9:.3f} GB, in {told.files} files{absent}: links.json says where",
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        write(json.dumps(told.to_json()) + "\n")


def _name(checkpoint: Path) -> str:
    """What a bundle is called after: a file without its ending, a folder as it is called, also where it is `.`."""
    name = checkpoint.name if checkpoint.name not in ("", "..") else checkpoint.resolve().name
    return Path(name).stem if Path(name).suffix in (".pt", ".pth", ".bin", ".safetensors") else name or "model"


def _names(parts: str | None) -> list[str] | None:
    """--parts as the parts it names; None where it was not given."""
    if parts is None:
        return None
    return [] if parts == "none" else [name.strip() for name in parts.split(",")]
