"""What reading int8 cache lines takes: a token behind so many others, beside float32 lines.

    python -m benchmarks.cache_times [--threads 1] [-o benchmarks/results]     # cache_times.json

The 512-wide model in float32, with MLA and with GQA, all its loops, one sequence in the engine of the Python runtime.
Each context is filled by a prompt, then both bundles decode in turns; the medians of all tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.models import WIDE
from mythos_export import export
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_model import MythosConfig, MythosModel, save_checkpoint
from mythos_runtime.engine import Request, Running, open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.session import Options

NAME = "cache_times.json"
KINDS = ("fp32", "int8")
MODELS = {
    "MLA": WIDE,
    "GQA": replace(WIDE, attn_type="gqa", n_kv_heads=2),
}
HELD = (128, 1024, 4096)
TOKENS = 24  # of a turn


def bundle(name: str, kind: str, into: Path) -> Path:
    """Made where it is not there. It is not verified: the figures are times."""
    made, checkpoint = into / f"{name}-{kind}", into / f"{name}-checkpoint"
    if not checkpoint.exists():
        config: MythosConfig = MODELS[name]
        save_checkpoint(checkpoint, config, MythosModel(config).reset_parameters(0).reference_state())
    if not made.exists():
        export(checkpoint, made, cache=kind, verification="later")
    return made


class Decoding:
    """A sequence of one bundle, some tokens in."""

    def __init__(self, made: Path, held: int, tokens: int, threads: int) -> None:
        self.engine = open_engine(made, EngineOptions(memory=1 << 30), options=Options(threads=threads))
        ids = np.random.default_rng(0).integers(0, WIDE.vocab_size, held).tolist()
        self.running: Running = self.engine.submit(Request(ids, tokens + 1, policy="full"))
        while not self.running.tokens:
            self.engine.tick()

    def turn(self, tokens: int) -> list[float]:
        """Seconds of each of the next tokens."""
        times: list[float] = []
        for _ in range(tokens):
            started, before = time.perf_counter(), len(self.running.tokens)
            while len(self.running.tokens) == before:
                self.engine.tick()
            times.append(time.perf_counter() - started)
        return times


def measure(made: dict[str, Path], held: int, rounds: int, threads: int) -> dict[str, Any]:
    """Both kinds behind one context, in turns."""
    decoding = {kind: Decoding(path, held, (rounds + 1) * TOKENS, threads) for kind, path in made.items()}
    times: dict[str, list[float]] = {kind: [] for kind in made}
    for number in range(rounds + 1):
        for kind, each in decoding.items():
            found = each.turn(TOKENS)
            times[kind] += found if number else []  # the first warms up
    middle = {kind: statistics.median(found) for kind, found in times.items()}
    return {"held": held, "seconds": middle, "int8_of_fp32": middle["int8"] / middle["fp32"]}


def table(document: dict[str, Any]) -> str:
    """The document as Markdown."""
    machine, rows = document["machine"], document["rows"]
    lines = [
        f"{machine['cpu']} with {', '.join(machine['vector_instructions'])}, {machine['at'][:10]} "
        f"(`{document['command']}`):",
        "",
        "| a token of the 512-wide model, 8 loops | tokens held | float32 lines | int8 lines | of float32's time |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        plain, rounded = (f"{1e3 * row['seconds'][kind]:.2f} ms" for kind in KINDS)
        lines.append(
            f"| {row['model']}, {row['threads']} thread{'s' * (row['threads'] > 1)} | {row['held']:,} | {plain} "
            f"| {rounded} | {row['int8_of_fp32']:.2f} |"
        )
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--threads", type=click.IntRange(min=1), multiple=True, default=(1, 2))
@click.option("--rounds", type=click.IntRange(min=1), default=5)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path("build/cache_times"))
def main(output: Path, threads: tuple[int, ...], rounds: int, folder: Path) -> None:
    rows = []
    load = os.getloadavg()[0]
    for name in MODELS:
        made = {kind: bundle(name, kind, folder) for kind in KINDS}
        for count in threads:
            for held in HELD:
                rows.append({"model": name, "threads": count, **measure(made, held, rounds, count)})
    machine = describe_machine(max(threads), usable_cores(max(threads)))
    document = {"command": "python -m benchmarks.cache_times", "machine": machine, "load_before": load, "rows": rows}
    output.mkdir(parents=True, exist_ok=True)
    (output / NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(table(document))


if __name__ == "__main__":
    main()
