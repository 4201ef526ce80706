"""What self-speculation brings: `python -m benchmarks.speculation [-o benchmarks/results]` (speculation.json).

Tokens that are drafted from early loops and verified together, against the same tokens without drafts, in turns, at 1,
4 and 16 sequences: on `text`, and at 1 and 4 on models of the size of Ouro-1.4B (int4a8, four passes of 24 layers of
2048, no exit), one whose passes all pick the same token and one with random weights throughout.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.depth.sweep import read_task
from benchmarks.real_size.random_model import CONFIG, make_bundle
from mythos_export import export
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_model.pretrained import folder as pretrained
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.opening import open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import Request
from mythos_runtime.engine.speculation import Speculate
from mythos_runtime.session import Options

ROOT = Path(__file__).parents[1]
NAME = "speculation.json"
SEQUENCES = (1, 4, 16)
PROMPT = 16  # tokens


@dataclass(frozen=True)
class Case:
    """A bundle and how it is asked.

    Attributes:
        prompts: one for each sequence.
        threshold: of every request; None: as trained.
        speculate: the ways of drafting. Engines take turns with the same requests.
        tokens: of an answer, half of which warm up.
        sequences: how many at a time.
    """

    name: str
    bundle: Path
    prompts: list[list[int]]
    threshold: float | None
    speculate: tuple[Speculate, ...]
    tokens: int
    sequences: tuple[int, ...] = SEQUENCES


def cases(built: Path) -> list[Case]:
    """What is measured; bundles that are missing in `built` are made there (minutes, for those of real size)."""
    held_out = read_task(pretrained("text") / "held_out.safetensors").ids
    asked = held_out[: max(SEQUENCES), :PROMPT].tolist()
    if not (built / "text").exists():
        export(pretrained("text"), built / "text", target="onnx")
    found = [
        Case("text, halting as trained", built / "text", asked, None, ("auto", 2, 3), 96),
        Case("text, every loop", built / "text", asked, math.inf, ("auto", 2, 3), 96),  # which no sum reaches
    ]
    draw = np.random.default_rng(0)
    drawn = draw.integers(300, CONFIG.vocab_size, (max(SEQUENCES), PROMPT)).tolist()
    for name, settled in (("settled", True), ("random", False)):
        bundle = built / f"ouro-int4a8-{name}"
        if not (bundle / "manifest.json").exists():
            make_bundle(CONFIG, "int4a8", bundle, settled=settled)
        found.append(Case(f"Ouro-1.4B's size, {name}", bundle, drawn, None, ("auto",), 32, SEQUENCES[:2]))
    return found


def answer(engine: Engine, case: Case, sequences: int) -> tuple[float, list[list[int]]]:
    """Seconds per token of each sequence, over the second half of the answers; and the answers."""
    running = [engine.submit(Request(p, case.tokens, halt_threshold=case.threshold)) for p in case.prompts[:sequences]]
    half, done, began = sequences * case.tokens // 2, 0, 0.0
    while engine.busy:
        done += len(engine.tick())
        if not began and done >= half:
            began, half = time.perf_counter(), done
    return (time.perf_counter() - began) / (done - half) * sequences, [each.tokens for each in running]


def measure(case: Case, threads: int, rounds: int, console: Console) -> list[dict[str, Any]]:
    """A row for each number of sequences and way of drafting.

    Raises:
        ClickException: drafts changed an answer.
    """
    options = Options(threads, engine="python")  # whose rounds of drafts can be counted
    ways: tuple[Speculate, ...] = ("off", *case.speculate)
    engines: dict[Speculate, Engine] = {}
    for way in ways:
        opened = open_engine(case.bundle, EngineOptions(memory=256 << 20, speculate=way), options=options)
        assert isinstance(opened, Engine)
        engines[way] = opened
    rows = []
    for sequences in case.sequences:
        seconds: dict[Speculate, list[float]] = {way: [] for way in ways}
        drafted = {way: _counts(engine) for way, engine in engines.items()}
        for number in range(-1, rounds):  # the first is not counted: sizes are met and bound, drafts tried
            console.print(f"{case.name}, {sequences} at a time: round {number + 1} of {rounds}", style="dim")
            answers = {}
            for way, engine in engines.items():
                if number == 0:
                    drafted[way] = _counts(engine)
                taken, answers[way] = answer(engine, case, sequences)
                if number >= 0:
                    seconds[way].append(taken)
            if any(answers[way] != answers["off"] for way in ways):
                raise click.ClickException(f"{case.name}: drafts changed an answer")
        for way, engine in engines.items():
            tried, right, drawn = (now - then for now, then in zip(_counts(engine), drafted[way], strict=True))
            pairs = zip(seconds["off"], seconds[way], strict=True)
            rows.append(
                {
                    "case": case.name,
                    "sequences": sequences,
                    "speculate": way,
                    "ms_per_token": 1e3 * statistics.median(seconds[way]),
                    "gain": statistics.median(off / this for off, this in pairs),
                    "drafts_per_round": tried / drawn if drawn else 0.0,
                    "accepted_per_round": right / drawn if drawn else 0.0,
                    "rounds_of_drafts": drawn,
                    "seconds": seconds[way],
                }
            )
    return rows


def _counts(engine: Engine) -> tuple[int, int, int]:
    """Drafts, those that were right, and rounds of drafting, until now."""
    found = engine.speculation
    return (0, 0, 0) if found is None else (found.drafted, found.accepted, found.rounds)


@click.command()
@click.option("-o", "out", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "benchmarks/results")
@click.option("--built", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "build/speculation")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--case", "only", default="", help="Those alone whose names begin so.")
def main(out: Path, built: Path, threads: int, rounds: int, only: str) -> None:
    console = Console(stderr=True)
    built.mkdir(parents=True, exist_ok=True)
    rows = [
        row for case in cases(built) if case.name.startswith(only) for row in measure(case, threads, rounds, console)
    ]
    out.mkdir(parents=True, exist_ok=True)
    document = {"machine": describe_machine(threads, usable_cores(threads)), "rows": rows}
    (out / NAME).write_text(json.dumps(document, indent=1) + "\n")
    table = Table("", "sequences", "drafts", "ms a token", "gain", "drafts a round", "accepted")
    for row in rows:
        figures = (f"{row[name]:.2f}" for name in ("ms_per_token", "gain", "drafts_per_round", "accepted_per_round"))
        table.add_row(row["case"], str(row["sequences"]), str(row["speculate"]), *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
