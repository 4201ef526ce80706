"""The training loop: AdamW, a warm-up and a cosine, clipping, checkpoints that resume exactly.

    result = train(Hops(), Path("build/hops"), seed=0)
    result.evaluation, result.seconds

Every batch is drawn from (seed, step) alone, so a resumed run draws the same batches and, with the same number of
threads on the same machine, ends in the same bits as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mythos_model.errors import CheckpointError, ModelError
from mythos_model.families.openmythos import MythosModel
from mythos_model.training.checkpoints import Progress, load_training, save_training
from mythos_model.training.halting import balance_experts
from mythos_model.training.schedule import Schedule
from mythos_model.training.tasks.task import Metrics, Task

REPORT, HELD_OUT = "training.json", "held_out.safetensors"
CLIP = 1.0  # norm of the whole gradient

Observer = Callable[[int, Metrics], None]  # called with the steps done and their figures


class TrainingDiverged(ModelError):
    """The loss or a gradient is no longer finite."""

    exit_code = 1


@dataclass(frozen=True)
class Settings:
    """What determines a run, beside the task's parameters; a resumed run must agree in both."""

    task: str
    steps: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        step: optimizer steps done; fewer than `settings.steps` where time ran out.
        seconds: of this call, evaluation included.
        history: recorded figures.
        evaluation: the task's held-out figures; None where steps are left.
    """

    settings: Settings
    step: int
    seconds: float
    history: list[Metrics]
    evaluation: dict[str, Any] | None


def train(
    task: Task,
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    save_every: int = 100,
    record_every: int = 10,
    observe: Observer | None = None,
) -> Result:
    """Train a model of `task.config` and leave it in `folder`.

    Args:
        folder: gets model.safetensors, config.json, training.safetensors and training.json; at the end of a whole
            run also held_out.safetensors, inputs to measure an exported bundle on.
        seed: of the starting weights and of every batch.
        steps: optimizer steps; default the task's. The schedule spans them.
        minutes: stop after this long, with a checkpoint to resume from.
        resume: go on from `folder`'s checkpoint. Everything else must be as it was.
        save_every, record_every: steps between checkpoints, and between records of the history.
        observe: called after every step.

    Raises:
        CheckpointError: nothing to resume, or it was another run.
        TrainingDiverged: the loss is not finite; the last checkpoint stands.
    """
    started = time.monotonic()
    settings = Settings(task.name, task.steps if steps is None else steps, seed)
    task.prepare()
    run = {**asdict(settings), "parameters": task.parameters()}
    model = MythosModel(task.config)
    task.initialise(model, seed)
    optimizer = make_optimizer(task, model)
    step, history = 0, []
    if resume:
        progress = load_training(folder, model, optimizer)
        if progress.settings != run:
            raise CheckpointError(f"{folder} holds a run of {progress.settings}, asked for was {run}")
        task.restore(progress.task)
        step, history = progress.step, progress.history

    schedule = Schedule(settings.steps, task.warmup)
    while step < settings.steps:
        metrics = train_step(task, model, optimizer, schedule, seed, step)
        step += 1
        if observe is not None:
            observe(step, metrics)
        if step % record_every == 0 or step == settings.steps:
            history.append({"step": float(step), **metrics})
        out_of_time = minutes is not None and time.monotonic() - started > 60 * minutes
        if step % save_every == 0 or step == settings.steps or out_of_time:
            save_training(folder, model, optimizer, Progress(step, run, task.state(), history))
        if out_of_time:
            break

    evaluation = None
    if step == settings.steps:
        evaluation = task.evaluate(model.requires_grad_(False))
        save_file(task.held_out_inputs(), folder / HELD_OUT)
    result = Result(settings, step, time.monotonic() - started, history, evaluation)
    _write_report(folder / REPORT, result)
    return result


def train_step(
    task: Task, model: MythosModel, optimizer: torch.optim.AdamW, schedule: Schedule, seed: int, step: int
) -> Metrics:
    """One batch, one update. Everything random in it comes from (seed, step)."""
    rate = task.learning_rate() * schedule.factor(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, load, metrics = task.loss(model, np.random.default_rng([seed, step]))
    optimizer.zero_grad()
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(trained(model), CLIP))
    if not math.isfinite(norm) or not math.isfinite(float(loss.detach())):
        raise TrainingDiverged(
            f"step {step + 1}: the loss is {float(loss.detach())}, the gradient's norm {norm}; "
            "a lower learning rate or another seed may help"
        )
    optimizer.step()
    balance_experts(model.experts.router_bias, load)
    return {"loss": float(loss.detach()), "learning rate": rate, "gradient": norm, **metrics}


def trained(model: MythosModel) -> Iterator[Tensor]:
    """The parameters with a gradient: all but the router's selection bias."""
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def make_optimizer(task: Task, model: MythosModel) -> torch.optim.AdamW:
    """AdamW (https://arxiv.org/abs/1711.05101) with decay on matrices only; the schedule sets the learning rate."""
    matrices = [parameter for parameter in trained(model) if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained(model) if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": task.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1.0, betas=task.betas)


def _write_report(file: Path, result: Result) -> None:
    document = {**asdict(result), "torch": torch.__version__, "threads": torch.get_num_threads()}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(document) + "\n", encoding="utf-8")
    os.replace(partial, file)
