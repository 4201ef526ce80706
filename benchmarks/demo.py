"""Ask the shipped model `hops` held-out questions: `python -m benchmarks.demo BUNDLE`.

The model follows chains of pointers: a prompt lists 24 edges a>b in random order and a start letter, and the answer
is the end of the chain. How many hops a question needs is not written in it. Training saw 1 to 8 hops and 10 loops.
Every question is asked alone, once as the model halts by itself and once with every loop forced.
"""

from __future__ import annotations

import json
import time
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
from mythos_runtime import Model
from mythos_runtime.cli.terminal import plain_errors
from mythos_runtime.dense import DenseCache

TRAINED = 8  # hops
DEEPER = 20  # most loops for questions beyond training


@dataclass(frozen=True)
class Row:
    """Figures of the questions of one number of hops; shares of 1, median seconds per answer."""

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


Data = dict[str, np.ndarray]  # input_ids [Q, T], answer, hops and trees [Q]


def ask(model: Model, eager: MythosModel, data: Data, max_loops: np.ndarray) -> list[Row]:
    """Ask Q questions with at most max_loops [Q] loops each; a row per number of hops.

    In random order, so that a machine that slows down slows all rows alike.
    """
    ids = data["input_ids"].astype(np.int64)
    expected = np.zeros(len(ids), np.int64)
    for most in np.unique(max_loops):
        mine = max_loops == most
        with torch.no_grad():
            logits = eager(torch.from_numpy(ids[mine]), max_loops=int(most)).logits
        expected[mine] = logits[:, -1].argmax(-1).numpy()

    caches = {int(most): DenseCache(1, ids.shape[1], model.spec, int(most)) for most in np.unique(max_loops)}
    guesses, seconds = np.zeros((2, len(ids)), np.int64), np.zeros((2, len(ids)))
    depth = np.zeros(len(ids))
    order = np.random.default_rng(0).permutation(len(ids))
    for q in track([order[0], *order], "asking", console=Console(stderr=True), transient=True):  # the first warms up
        most = int(max_loops[q])
        started = time.perf_counter()
        halted = model.forward(ids[q], max_loops=most)
        between = time.perf_counter()
        caches[most].reset()
        forced = model.forward(ids[q], cache=caches[most])  # which fills every depth
        seconds[:, q] = between - started, time.perf_counter() - between
        guesses[:, q] = halted.logits[0, -1].argmax(), forced.logits[0, -1].argmax()
        depth[q] = halted.depth[0, -1]

    rows = []
    for hops in np.unique(data["hops"]):
        mine = data["hops"] == hops
        right = (guesses == data["answer"])[:, mine].mean(1)
        middle = np.median(seconds[:, mine], axis=1)
        rows.append(
            Row(
                hops=int(hops),
                asked=int(mine.sum()),
                max_loops=int(max_loops[mine][0]),
                guess=float((1 / data["trees"][mine]).mean()),
                eager=float((expected == data["answer"])[mine].mean()),
                bundle=float(right[0]),
                forced=float(right[1]),
                agree=float((guesses == expected).all(0)[mine].mean()),
                depth=float(depth[mine].mean()),
                seconds=float(middle[0]),
                forced_seconds=float(middle[1]),
            )
        )
    return rows


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
    """Over the hops that were trained, from the medians: with halting, and with every loop forced."""
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
    with plain_errors():
        model = mythos_runtime.load(bundle, threads=threads)
    checkpoint = load_checkpoint(folder("hops"))
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    questions = load_file(folder("hops") / "held_out.safetensors")
    loops = np.where(questions["hops"] <= TRAINED, model.spec.trained_loops, DEEPER)
    rows = ask(model, eager, questions, loops)
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
