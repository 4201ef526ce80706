"""What rounded weights cost in quality, and save in bytes and time, on the trained models that ship here.

    python -m benchmarks.quantization [-o benchmarks/results]   # quantization.json; the table of docs/weight-formats.md
    python -m benchmarks.quantization -o benchmarks/results --precisions fp8   # these anew, the others as they are

Every held-out input is run in every precision, one at a time, halting as trained; inputs are outermost and precisions
in random order, so that a machine that slows down slows all alike. fp8 has no CPU kernels: its portable bodies compute
what it costs in quality, and its times are not taken.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.depth.sweep import MAX_LOOPS, Setting, Task, read_task, run, usual_threshold
from mythos_export import export
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_model.pretrained import folder
from mythos_runtime import Model, load
from mythos_runtime.op_library import why_no_op_library

PRECISIONS = ("fp32", "int8", "int8a8", "int4", "int4a8", "fp8")
"""As the manifest names them: `a8` is `--activations int8`."""
NOT_TIMED = ("fp8",)
MODELS = {"hops": 20, "text": 6}
"""Shipped models, and the most loops that an input gets."""
FIGURES = ("bits", "right", "depth", "loops", "seconds")
NAME = "quantization.json"


def measure(models: dict[str, Model], task: Task, loops: int, label: str) -> dict[str, dict[str, float]]:
    """Per precision, means over the inputs of FIGURES; the time is the median."""
    random = np.random.default_rng(0)
    figures = np.zeros((len(models), len(task.ids), len(FIGURES)))
    settings = {name: Setting(MAX_LOOPS, loops, usual_threshold(model)) for name, model in models.items()}
    names = list(models)
    for q in track(range(-1, len(task.ids)), label, console=Console(stderr=True), transient=True):
        for index in random.permutation(len(names)):  # the first input twice: a first call allocates
            figures[index, max(q, 0)] = run(models[names[index]], task, max(q, 0), settings[names[index]])
    return {
        name: dict(zip(FIGURES, figures[index].mean(0).tolist(), strict=True))
        | {"seconds": float(np.median(figures[index, :, -1]))}
        for index, name in enumerate(names)
    }


def document_of(threads: int, inputs: int | None, precisions: Sequence[str] = PRECISIONS) -> dict[str, Any]:
    """Export every model in these precisions, and measure with the CPU kernels."""
    lack = why_no_op_library()
    if lack is not None:
        raise click.ClickException(f"the CPU kernels are what is measured, and they are not here: {lack}")
    document: dict[str, Any] = {"machine": describe_machine(threads, usable_cores(threads)), "models": {}}
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as kept:
        for name, loops in MODELS.items():
            bundles = {}
            for precision in precisions:
                console.print(f"export {name}, {precision}")
                weights, activations = precision.removesuffix("a8"), "int8" if precision.endswith("a8") else None
                place, target = Path(kept) / f"{name}-{precision}", "cuda" if precision in NOT_TIMED else "onnx"
                made = export(folder(name), place, target, precision=weights, activations=activations)
                bundles[precision] = made.path
            models = {precision: load(bundle, threads=threads) for precision, bundle in bundles.items()}
            task = read_task(folder(name) / "held_out.safetensors")
            if inputs is not None:
                task = Task(task.ids[:inputs], None if task.answer is None else task.answer[:inputs])
            measured = measure(models, task, loops, name)
            for precision, bundle in bundles.items():
                measured[precision]["weight_bytes"] = (bundle / "weights.safetensors").stat().st_size
                if precision in NOT_TIMED:
                    del measured[precision]["seconds"]
            document["models"][name] = {
                "inputs": len(task.ids),
                "tokens": task.ids.shape[1] - (task.answer is None),
                "most_loops": loops,
                "measure": task.measure,
                "description": models[precisions[0]].session.description,
                "precisions": measured,
            }
    return document


def table(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    machine, models = document["machine"], document["models"]
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    sizes = " and ".join(f"{m['inputs']} inputs of {m['tokens']} tokens for {name}" for name, m in models.items())
    lines = [
        f"{machine['cpu']}, {threads}, {machine['at'][:10]}: {sizes}; the time of an input is the median.",
        "",
        "| | weights | quality | loops run | an input |",
        "|---|---|---|---|---|",
    ]
    for name, model in models.items():
        for precision, row in model["precisions"].items():
            answered = f"{row['right']:.1%} right, " if model["measure"] == "bits of the answer" else ""
            lines.append(
                f"| {name}, {precision} | {row['weight_bytes'] / 1e6:.2f} MB | {answered}{row['bits']:.3f} "
                f"{model['measure']} | {row['loops']:.2f} | {_time(row)} |"
            )
    return "\n".join(lines)


def _time(row: dict[str, float]) -> str:
    return f"{1e3 * row['seconds']:.2f} ms" if "seconds" in row else "not timed"


def merged(before: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """An earlier document with what was measured now; each of its figures says when."""
    for name, model in before["models"].items():
        for precision, row in measured["models"][name]["precisions"].items():
            model["precisions"][precision] = row | {"at": measured["machine"]["at"]}
    return before


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--inputs", type=click.IntRange(min=1), help="Only the first of each model's held-out inputs.")
@click.option("--precisions", help=f"Of {','.join(PRECISIONS)}; the figures of others stay as OUTPUT has them.")
def main(output: Path, threads: int, inputs: int | None, precisions: str | None) -> None:
    document = document_of(threads, inputs, PRECISIONS if precisions is None else precisions.split(","))
    output.mkdir(parents=True, exist_ok=True)
    if precisions is not None:
        document = merged(json.loads((output / NAME).read_text(encoding="utf-8")), document)
    (output / NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(table(document))


if __name__ == "__main__":
    main()
