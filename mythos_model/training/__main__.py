"""Command line: `python -m mythos_model.training hops|walk|text --out FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mythos_model.errors import ModelError
from mythos_model.training import TASKS, Task, train
from mythos_model.training.plot import draw_history
from mythos_model.training.tasks.task import Metrics
from mythos_model.training.trainer import Observer

SHOWN = ("loss", "bits per byte", "hops", "right", "depth")  # beside the progress bar, where a task records them


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("task", type=click.Choice(sorted(TASKS)))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the run.")
@click.option("--seed", default=0, show_default=True, help="Of the starting weights and of every batch.")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps; default the recipe's.")
@click.option("--minutes", type=click.FloatRange(0), help="Stop after this long; --resume goes on from there.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="CPU threads; part of the bits.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option("--force", is_flag=True, help="Start anew although --out holds a run.")
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout: the run's figures as JSON.")
def main(
    task: str,
    out: Path,
    seed: int,
    steps: int | None,
    minutes: float | None,
    threads: int,
    resume: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train a small model on TASK and leave a checkpoint for mythos-export in the folder --out."""
    console = Console(stderr=True)
    torch.set_num_threads(threads)
    chosen = TASKS[task]()
    try:
        if (out / "training.safetensors").exists() and not (resume or force):
            raise ModelError(f"{out} holds a run already; --resume goes on with it, --force starts anew")
        with _progress(console, chosen, chosen.steps if steps is None else steps) as observe:
            result = train(chosen, out, seed=seed, steps=steps, minutes=minutes, resume=resume, observe=observe)
    except KeyboardInterrupt:
        kept = (out / "training.safetensors").exists()
        then = f"the last checkpoint in {out} stands, go on with --resume" if kept else "no checkpoint was written yet"
        console.print(f"interrupted; {then}")
        sys.exit(130)
    except ModelError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(error.exit_code)
    if result.history:
        plot = draw_history(result.history, out / "training.svg")
        console.print(f"the course of the run: {plot}")
    if result.evaluation is None:
        console.print(f"stopped after {result.step} of {result.settings.steps} steps; go on with --resume")
    else:
        console.print(f"held-out figures: {out / 'training.json'}; export with: mythos-export {out} --target onnx")
        console.print_json(data=result.evaluation)
    if as_json:
        click.echo(json.dumps({**asdict(result), "history": result.history[-1:]}))


@contextmanager
def _progress(console: Console, task: Task, steps: int) -> Iterator[Observer]:
    """A progress bar with the figures of the last step."""
    figures = TextColumn("{task.fields[now]}")
    clocks = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(BarColumn(), MofNCompleteColumn(), *clocks, figures, console=console) as bar:
        line = bar.add_task(task.name, total=steps, now="")

        def observe(step: int, metrics: Metrics) -> None:
            now = "  ".join(f"{name} {metrics[name]:.3g}" for name in SHOWN if name in metrics)
            bar.update(line, completed=step, now=now)

        yield observe


if __name__ == "__main__":
    main()
