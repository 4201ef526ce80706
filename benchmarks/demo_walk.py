"""Let the shipped model `walk` write its held-out walks: `python -m benchmarks.demo_walk BUNDLE`.

A prompt is a map of 24 letters, and the answer twelve tokens: the stops of a walk. A stop that is s steps away takes
the model s + 1 loops, and s is written nowhere. Every walk is generated three times, in turns: by the engine with the
depth that each token needs (lazy), by the engine with every loop of every token (full), and in lock-step, a call of the
whole model's graph per token. The prompt counts: lazy runs its later loops only when a token needs them.
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
from mythos_runtime import Model
from mythos_runtime.cli.terminal import plain_errors
from mythos_runtime.dense import DenseCache
from mythos_runtime.engine.sequence import Policy

LAZY, FULL, LOCK_STEP = "lazy", "full", "lock-step"
MIXED = 0

Data = dict[str, np.ndarray]  # input_ids [Q, T]; answers and steps [Q, n]; level [Q]
Written = tuple[np.ndarray, np.ndarray]  # tokens and depths, both [B, n]


@dataclass(frozen=True)
class Row:
    """Figures of the walks of one level, so many generated at a time; shares of 1.

    Attributes:
        level: steps of a stretch; 0: of any length, mixed.
        right, whole: right stops, and walks without a wrong one, as lazy wrote them.
        agree: walks that are the same, to the last token and depth, by all three and by eager PyTorch.
        depth: loops of a token, on average.
        tokens_per_second: by schedule, the median over walks.
        times: tokens per second of lazy over those of full and of lock-step, the medians of ratios taken walk by walk.
    """

    level: int
    together: int
    walks: int
    right: float
    whole: float
    agree: float
    depth: float
    tokens_per_second: dict[str, float]
    times: dict[str, float]


def write_walks(
    model: Model, expected: Written, data: Data, together: int, clock: Callable[[], float] = time.perf_counter
) -> list[Row]:
    """Generate Q walks, `together` at a time and of one level; a row per level, the mixed one last.

    Args:
        expected: of eager PyTorch, for all Q.
        clock: what time is read from, in seconds.
    """
    ids = data["input_ids"].astype(np.int64)
    length = data["answers"].shape[1]
    schedules = _schedules(model, together, ids.shape[1], length)
    levels = sorted(np.unique(data["level"]).tolist(), key=lambda level: (level == MIXED, level))
    batches = []
    for level in levels:
        of_level = np.flatnonzero(data["level"] == level)
        batches += [of_level[at : at + together] for at in range(0, len(of_level) - together + 1, together)]
        if len(of_level) < together:
            raise ValueError(
                f"there are {len(of_level)} walks of level {level}, and {together} were to be written together"
            )
    for write in schedules.values():  # warms up
        write(ids[batches[0]])

    random = np.random.default_rng(0)
    seconds = {name: np.zeros(len(batches)) for name in schedules}
    written: dict[str, list[Written]] = {name: [(np.empty(0), np.empty(0))] * len(batches) for name in schedules}
    for batch in track(random.permutation(len(batches)), "walking", console=Console(stderr=True), transient=True):
        for name in random.permutation(list(schedules)):  # a machine that slows down slows all alike
            started = clock()
            written[name][batch] = schedules[name](ids[batches[batch]])
            seconds[name][batch] = (clock() - started) / (together * length)

    rows = []
    for level in levels:
        mine = [n for n, batch in enumerate(batches) if data["level"][batch[0]] == level]
        walks = np.concatenate([batches[n] for n in mine])
        tokens, depth = (np.concatenate([written[LAZY][n][part] for n in mine]) for part in (0, 1))
        same = (tokens == expected[0][walks]) & (depth == expected[1][walks])
        for name in (FULL, LOCK_STEP):
            other, deep = (np.concatenate([written[name][n][part] for n in mine]) for part in (0, 1))
            same &= (tokens == other) & (depth == deep)
        right = tokens == data["answers"][walks]
        per_token = {name: each[mine] for name, each in seconds.items()}
        rows.append(
            Row(
                level=level,
                together=together,
                walks=len(walks),
                right=float(right.mean()),
                whole=float(right.all(1).mean()),
                agree=float(same.all(1).mean()),
                depth=float(depth.mean()),
                tokens_per_second={name: float(1 / np.median(each)) for name, each in per_token.items()},
                times={name: float(np.median(per_token[name] / per_token[LAZY])) for name in (FULL, LOCK_STEP)},
            )
        )
    return rows


def write_eagerly(data: Data) -> Written:
    """By the checkpoint in PyTorch, the whole sequence anew for every token."""
    checkpoint = load_checkpoint(folder("walk"))
    model = MythosModel.from_state(checkpoint.config, checkpoint.state)
    sequence, depth = torch.from_numpy(data["input_ids"].astype(np.int64)), []
    with torch.no_grad():
        for _ in range(data["answers"].shape[1]):
            out = model(sequence)
            sequence = torch.cat([sequence, out.logits[:, -1:].argmax(-1)], 1)
            depth.append(out.depth[:, -1:])
    return sequence[:, data["input_ids"].shape[1] :].numpy(), torch.cat(depth, 1).numpy()


def _schedules(model: Model, batch: int, prompt: int, length: int) -> dict[str, Callable[[np.ndarray], Written]]:
    """How walks are generated, by name: int64 [batch, prompt] -> tokens and depths [batch, length]."""
    cache = DenseCache(batch, prompt + length - 1, model.spec)  # which fills every depth

    def by_rows(policy: Policy) -> Callable[[np.ndarray], Written]:
        def write(ids: np.ndarray) -> Written:
            result = model.generate_all(ids, max_new_tokens=length, policy=policy)
            return np.array(result.tokens), np.array(result.depth)

        return write

    def in_lock_step(ids: np.ndarray) -> Written:
        cache.reset()
        tokens, depth = [], []
        following = ids
        for _ in range(length):
            out = model.forward(following, cache=cache)
            following = out.logits[:, -1:].argmax(-1)
            tokens.append(following)
            depth.append(out.depth[:, -1:])
        return np.concatenate(tokens, 1), np.concatenate(depth, 1)

    return {LAZY: by_rows("lazy"), FULL: by_rows("full"), LOCK_STEP: in_lock_step}


def show(console: Console, rows: list[Row]) -> None:
    """The rows of one number of walks at a time, as a table."""
    together = rows[0].together
    title = "tokens per second, " + ("one walk at a time" if together == 1 else f"{together} walks at a time")
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
    for name in ("steps", "right", "whole", "agree", "loops", LAZY, FULL, "lock", "/full", "/lock"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = (f"{100 * share:.1f}" for share in (row.right, row.whole, row.agree))
        rates = (f"{row.tokens_per_second[name]:.0f}" for name in (LAZY, FULL, LOCK_STEP))
        times = (f"{row.times[name]:.2f}" for name in (FULL, LOCK_STEP))
        table.add_row("mixed" if row.level == MIXED else str(row.level), *shares, f"{row.depth:.1f}", *rates, *times)
    console.print(table)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--threads", default=1, show_default=True, help="CPU threads; the model is too small for more.")
@click.option(
    "--together",
    default=(1, 16),
    show_default=True,
    multiple=True,
    type=click.IntRange(1, 32),
    help="Walks at a time; may be given again.",
)
@click.option("--processor-time", is_flag=True, help="Instead of time on the clock: for a busy machine, one thread.")
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout: all figures as JSON.")
def main(bundle: Path, threads: int, together: tuple[int, ...], processor_time: bool, as_json: bool) -> None:
    """Let the exported model `walk` in the folder BUNDLE write its held-out walks."""
    console = Console(stderr=as_json)
    with plain_errors():
        model = mythos_runtime.load(bundle, threads=threads)
    data = load_file(folder("walk") / "held_out.safetensors")
    expected = write_eagerly(data)
    clock = time.process_time if processor_time else time.perf_counter
    groups = [write_walks(model, expected, data, count, clock) for count in together]
    for rows in groups:
        show(console, rows)
    for line in (
        "steps: to every stop. right, whole: stops, and walks without a wrong one, in %.",
        "agree: the three and eager PyTorch give the same tokens and depths, in %.",
        "loops: of a token, on average. lock: lock-step.",
        "/full, /lock: how many times as fast lazy is, the median over walks.",
    ):
        console.print(line, highlight=False)
    for rows in groups:
        easy, hard = rows[0], max(rows, key=lambda row: row.level)
        rates = [row.tokens_per_second[LAZY] for row in (easy, hard)]
        console.print(
            f"{easy.together} at a time: lazy gives [bold]{rates[0]:.0f} tokens/s[/] on the easiest walks, "
            f"{rates[1]:.0f} on the hardest; {easy.times[FULL]:.2f} and {hard.times[FULL]:.2f} times as many as full.",
            highlight=False,
        )
    console.print(f"{model.session.description}, {model.spec.trained_loops} loops.", highlight=False)
    if as_json:
        click.echo(json.dumps({"rows": [asdict(row) for rows in groups for row in rows]}))


if __name__ == "__main__":
    main()
