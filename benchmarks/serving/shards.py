"""What shards cost on one machine: `python -m benchmarks.serving.shards -o FILE`. Writes JSON, and says it in lines.

The same requests through the engine over the whole bundle and over it in 1, 2 and 4 shards, taking turns. Every process
has one thread; with more shards than cores they wait for one another, as machines of their own would not. Answers are
held to the whole bundle's to the bit, or nothing is reported.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.models import WIDE, checkpoint
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_export.making import load, make
from mythos_export.shards.files import stripped
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import BASE, TargetOptions
from mythos_runtime.engine import AnyEngine, Request, open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.session import Options

SHARDS, SEQUENCES = (None, 1, 2, 4), (1, 8, 32)
_PROMPT, _TOKENS, _MEMORY = 16, 12, 256 << 20

Run = tuple[float, list[tuple[list[int], list[int]]], bytes]


def bundle(precision: str, shards: int | None, folder: Path) -> Path:
    """The 512-wide model in so many shards (None: whole), not verified: what counts here is its cost."""
    into = folder / str(shards)
    into.mkdir()
    made = make(
        load(checkpoint("wide", folder), precision),
        into,
        find_target(BASE),
        TargetOptions(precision, expert_shards=shards),
    )
    stripped(made.bundle).finish()
    return into


def run(engine: AnyEngine, sequences: int) -> Run:
    """Seconds of all tokens behind the prompts, what was answered, and the bytes of all logits."""
    draw = np.random.default_rng(sequences)
    running = [
        engine.submit(Request(draw.integers(0, WIDE.vocab_size, _PROMPT).tolist(), max_new_tokens=_TOKENS))
        for _ in range(sequences)
    ]
    logits: dict[int, list[bytes]] = {number: [] for number in range(sequences)}
    began = None
    while engine.busy:
        for token in engine.tick():
            logits[running.index(token.running)].append(token.logits.tobytes())
        if began is None and all(logits.values()):
            began = time.perf_counter()
    assert began is not None
    seconds = time.perf_counter() - began
    return (
        seconds,
        [(each.tokens, each.depth) for each in running],
        b"".join(b"".join(each) for each in logits.values()),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--precision", type=click.Choice(["fp32", "int8", "int4"]), default="fp32", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("build/serving/shards.json"), show_default=True
)
def main(precision: str, rounds: int, out: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        folders = {shards: bundle(precision, shards, Path(place)) for shards in SHARDS}
        engines = {
            shards: open_engine(folder, EngineOptions(memory=_MEMORY), options=Options(1, provider="cpu"))
            for shards, folder in folders.items()
        }
        rows: list[dict[str, Any]] = []
        for sequences in SEQUENCES:
            taken: dict[int | None, list[float]] = {shards: [] for shards in SHARDS}
            for number in range(rounds + 1):  # the first binds buffers
                runs = {shards: run(engine, sequences) for shards, engine in engines.items()}
                if any(each[1:] != runs[None][1:] for each in runs.values()):
                    raise SystemExit("answers differ from the whole bundle's")
                for shards, (seconds, *_) in runs.items():
                    if number:
                        taken[shards].append(seconds)
            for shards in SHARDS:
                ratios = [one / whole for one, whole in zip(taken[shards], taken[None], strict=True)]
                times = [1e3 * seconds / (_TOKENS - 1) for seconds in taken[shards]]
                rows.append(
                    {
                        "sequences": sequences,
                        "shards": shards,
                        "ms_per_step_of_all": statistics.median(times),
                        "times_the_whole": statistics.median(ratios),
                        "least": min(ratios),
                        "most": max(ratios),
                    }
                )
                name = "whole" if shards is None else f"{shards} shards"
                said = f"{rows[-1]['ms_per_step_of_all']:.2f} ms, {rows[-1]['times_the_whole']:.2f} x the whole"
                click.echo(f"{sequences} sequences, {name}: {said}", err=True)
        document = {
            "machine": describe_machine(1, usable_cores()),
            "precision": precision,
            "rounds": rounds,
            "runs": rows,
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps({"out": str(out)}))


if __name__ == "__main__":
    main()
