"""What int8 caches cost in quality, and save in memory, on the trained models that ship here.

    python -m benchmarks.caches [-o benchmarks/results]   # caches.json; the table of docs/weight-formats.md

On the models' held-out ids, every prompt with its answers, halting as trained, with PyTorch, which rounds a line as
soon as it is made: nothing is timed, and the same comes out on every machine, but for the last digits. The bytes are
those of an engine's pages, for a token that ran every loop that the model was trained with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file
from torch import Tensor

from mythos_model import LoopedModel, load_checkpoint
from mythos_model.pretrained import folder
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.spec import LoopSpec

MODELS = {"hops": 20, "text": 6, "walk": 8}
"""Shipped models, and the most loops that a token gets."""
NAME = "caches.json"
_AT_ONCE = 64  # inputs


@dataclass(frozen=True)
class Asked:
    """Inputs, and which next ids are asked for: ids int64 [Q, T], wanted int64 [Q, A], of the last A positions."""

    ids: Tensor
    wanted: Tensor

    @classmethod
    def of(cls, name: str, inputs: int | None) -> Asked:
        """The held-out inputs of a model, or the first so many."""
        held = {key: value[:inputs].long() for key, value in load_file(folder(name) / "held_out.safetensors").items()}
        ids = held["input_ids"]
        if "answers" in held:
            return cls(torch.cat([ids, held["answers"][:, :-1]], 1), held["answers"])
        return cls(ids, held["answer"][:, None]) if "answer" in held else cls(ids[:, :-1], ids[:, 1:])


def answers(model: LoopedModel, asked: Asked, loops: int) -> tuple[Tensor, Tensor]:
    """Log probabilities [Q, A, V] and depths [Q, A] of what is asked."""
    count = asked.wanted.shape[1]
    outputs = [model(ids, max_loops=loops) for ids in asked.ids.split(_AT_ONCE)]
    logits = torch.cat([out.logits[:, -count:] for out in outputs])
    return logits.double().log_softmax(-1), torch.cat([out.depth[:, -count:] for out in outputs])


def line_bytes(spec: LoopSpec) -> int:
    """Of a token in an engine's pages, at every loop that the model was trained with."""
    lines = {group.name: group.slots * (spec.trained_loops if group.per_loop else 1) for group in spec.caches}
    return sum(
        lines[group.name] * group.page_width * int(numpy_dtype(group.page_dtype).itemsize) for group in spec.caches
    )


def figures(found: Tensor, plain: Tensor, wanted: Tensor, depth: Tensor) -> dict[str, float]:
    """Of log probabilities [Q, A, V], beside those of float32 caches; means over all that was asked."""
    bits = -found.gather(-1, wanted.unsqueeze(-1)) / torch.tensor(2.0).log()
    return {
        "right": float((found.argmax(-1) == wanted).double().mean()),
        "bits": float(bits.mean()),
        "nats": float((plain.exp() * (plain - found)).sum(-1).mean().clamp(min=0)),
        "same": float((found.argmax(-1) == plain.argmax(-1)).double().mean()),
        "depth": float(depth.double().mean()),
    }


@torch.no_grad()
def measure(name: str, loops: int, inputs: int | None = None) -> dict[str, Any]:
    """A model with both kinds of caches."""
    checkpoint, asked = load_checkpoint(folder(name)), Asked.of(name, inputs)
    plain = checkpoint.model(torch.float32)
    rounded = checkpoint.model(torch.float32).with_int8_cache()
    expected = answers(plain, asked, loops)
    return {
        "inputs": len(asked.ids),
        "asked": asked.wanted.numel(),
        "most_loops": loops,
        "caches": {
            kind: {**figures(found, expected[0], asked.wanted, depth), "bytes": line_bytes(model.spec)}
            for kind, model, (found, depth) in (
                ("fp32", plain, expected),
                ("int8", rounded, answers(rounded, asked, loops)),
            )
        },
    }


def table(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    lines = [
        "| | asked | right | bits each | depth | nats from float32 | same first choice | a token's cache |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, model in document.items():
        for kind, row in model["caches"].items():
            apart = "" if kind == "fp32" else f"{row['nats']:.2g} | {row['same']:.2%}"
            own = f"{row['right']:.2%} | {row['bits']:.4f} | {row['depth']:.3f}"
            lines.append(f"| {name}, {kind} | {model['asked']:,} | {own} | {apart or ' | '} | {row['bytes']:,} bytes |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--inputs", type=click.IntRange(min=1), help="Only the first of each model's held-out inputs.")
def main(output: Path, inputs: int | None) -> None:
    document = {name: measure(name, loops, inputs) for name, loops in MODELS.items()}
    output.mkdir(parents=True, exist_ok=True)
    (output / NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(table(document))


if __name__ == "__main__":
    main()
