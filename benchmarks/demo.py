"""Ask the shipped model `hops` held-out questions: `python -m benchmarks.demo BUNDLE`.

The model follows chains of pointers: a prompt lists 24 edges a>b in random order and a start letter, and the answer
is the end of the chain. How many hops a question needs is not written in it. Training saw 1 to 8 hops and 10 loops.
Every question is asked alone, once as the model halts by itself and once with every loop forced.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.numpy import load_file

import mythos_runtime
from mythos_model import MythosModel, load_checkpoint
from mythos_model.pretrained import folder
from mythos_runtime import Model, Output

TRAINED = 8  # hops
DEEPER = 20  # most loops for questions beyond training


@dataclass(frozen=True)
class Row:
    """Figures of the questions of one number of hops; shares of 1, seconds per answer."""

    hops: int
    asked: int
    max_loops: int
    guess: float  # the chance of a guess among the roots
    eager: float  # right answers of eager PyTorch
    bundle: float
    forced: float  # right answers of the bundle with every loop forced
    agree: float  # eager, bundle and forced bundle give the same answer
    depth: float  # loops after which the model stopped at the answer
    seconds: float
    forced_seconds: float


def ask(model: Model, eager: MythosModel, data: dict[str, np.ndarray], max_loops: int) -> Row:
    """Ask questions that all have the same number of hops."""
    ids, answer = data["input_ids"].astype(np.int64), data["answer"]
    with torch.no_grad():
        expected = eager(torch.from_numpy(ids), max_loops=max_loops).logits[:, -1].argmax(-1).numpy()
    cache = model.new_cache(1, ids.shape[1], max_loops)

    def halting(question: np.ndarray) -> Output:
        return model.forward(question, max_loops=max_loops)

    def forced(question: np.ndarray) -> Output:
        cache.reset()
        return model.forward(question, cache=cache, policy="full")  # a cache that must be exact runs every depth

    def timed(run: Callable[[np.ndarray], Output], question: np.ndarray) -> tuple[Output, float]:
        started = time.perf_counter()
        output = run(question)
        return output, time.perf_counter() - started

    halting(ids[0]), forced(ids[0])  # warm-up
    pairs = [(timed(halting, question), timed(forced, question)) for question in ids]
    guesses = np.array([[output.logits[0, -1].argmax() for output, _ in pair] for pair in pairs])
    seconds = np.array([[elapsed for _, elapsed in pair] for pair in pairs])
    return Row(
        hops=int(data["hops"][0]),
        asked=len(ids),
        max_loops=max_loops,
        guess=float((1 / data["trees"]).mean()),
        eager=float((expected == answer).mean()),
        bundle=float((guesses[:, 0] == answer).mean()),
        forced=float((guesses[:, 1] == answer).mean()),
        agree=float((guesses == expected[:, None]).all(1).mean()),
        depth=float(np.mean([halted.depth[0, -1] for (halted, _), _ in pairs])),
        seconds=float(seconds[:, 0].mean()),
        forced_seconds=float(seconds[:, 1].mean()),
    )


def show(console: Console, rows: list[Row]) -> None:
    """The rows as a table."""
    title = "one question at a time; full: with every loop forced"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    for name in ("hops", "guess", "eager", "bundle", "agree", "stops at", "ms", "full", "loops", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = (f"{share:.0%}" for share in (row.guess, row.eager, row.bundle, row.agree))
        halting = (f"{row.depth:.1f}", f"{1e3 * row.seconds:.1f}")
        full = (f"{row.forced:.0%}", str(row.max_loops), f"{1e3 * row.forced_seconds:.1f}")
        table.add_row(f"{row.hops}{'' if row.hops <= TRAINED else '*'}", *shares, *halting, *full)
    console.print(table)
    console.print(f"Shares of right answers to {rows[0].asked} questions each. guess: chance among the roots;")
    console.print("agree: eager PyTorch, the bundle and the bundle at full depth give the same answer.")
    console.print(f"* more hops than training had, and up to {DEEPER} loops where training had 10.")


def answers_per_second(rows: list[Row]) -> tuple[float, float]:
    """Over the hops that were trained: with halting, and with every loop forced."""
    trained = [row for row in rows if row.hops <= TRAINED]
    asked = sum(row.asked for row in trained)
    return (
        asked / sum(row.asked * row.seconds for row in trained),
        asked / sum(row.asked * row.forced_seconds for row in trained),
    )


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--threads", default=1, show_default=True, help="CPU threads; the model is too small for more.")
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout: all figures as JSON.")
def main(bundle: Path, threads: int, as_json: bool) -> None:
    """Ask the exported model `hops` in the folder BUNDLE its held-out questions."""
    console = Console(stderr=as_json)
    model = mythos_runtime.load(bundle, threads=threads)
    checkpoint = load_checkpoint(folder("hops"))
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    questions = load_file(folder("hops") / "held_out.safetensors")
    rows = []
    for hops in track(np.unique(questions["hops"]), "asking", console=console, transient=True):
        mine = questions["hops"] == hops
        data = {name: values[mine] for name, values in questions.items()}
        rows.append(ask(model, eager, data, model.config.max_loop_iters if hops <= TRAINED else DEEPER))
    show(console, rows)
    halting, forced = answers_per_second(rows)
    console.print(
        f"1 to {TRAINED} hops: [bold]{halting:.0f} answers/s[/] halting by itself, {forced:.0f} at full depth, "
        f"{halting / forced:.2f} times as many. ({model.session.description})",
        highlight=False,
    )
    console.print(
        f"The deeper the question, the longer it thinks. The bundle is in {bundle}; look with: mythos inspect {bundle}"
    )
    if as_json:
        figures = {"rows": [asdict(row) for row in rows], "answers_per_second": halting, "forced": forced}
        click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
