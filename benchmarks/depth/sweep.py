"""Run a bundle at many settings of its depth knobs, every input at every setting, one input at a time.

Inputs are outermost and the settings of one input run in random order, so that a machine that slows down slows all
settings alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import log_softmax

from mythos_export.bench.forced import never
from mythos_runtime import Model, RequestError

MAX_LOOPS, HALT_THRESHOLD, FORCED_LOOPS = "max_loops", "halt_threshold", "forced_loops"


@dataclass(frozen=True)
class Setting:
    """One point of a sweep; `knob` is what varies in it.

    max_loops: the most loops, every position halting by itself before. halt_threshold: where the exit rule lets it.
    forced_loops: as many loops for every position, none halts.
    """

    knob: str
    max_loops: int
    halt_threshold: float

    @property
    def value(self) -> float:
        """The knob's value."""
        return self.halt_threshold if self.knob == HALT_THRESHOLD else float(self.max_loops)

    def __str__(self) -> str:
        halting = "no halting" if self.knob == FORCED_LOOPS else f"halt_threshold {self.halt_threshold:g}"
        return f"max_loops {self.max_loops}, {halting}"


@dataclass(frozen=True)
class Task:
    """Inputs of one length, and what is asked of them.

    Attributes:
        ids: int64 [Q, T].
        answer: int64 [Q], the right id after the last position; None for a language model, which is asked for every
            next id of its input.
    """

    ids: np.ndarray
    answer: np.ndarray | None

    @property
    def measure(self) -> str:
        return "bits per token" if self.answer is None else "bits of the answer"


@dataclass(frozen=True)
class Sweep:
    """Figures of S settings on Q inputs, arrays [S, Q].

    Attributes:
        loss: bits: of the answer, or mean over the input's next ids. Lower is better.
        right: 1 where the answer is right; for a language model, the share of right next ids.
        depth: mean depth of the positions that are asked.
        loops: iterations that ran, the deepest position's depth.
        seconds: of the call.
    """

    settings: tuple[Setting, ...]
    loss: np.ndarray
    right: np.ndarray
    depth: np.ndarray
    loops: np.ndarray
    seconds: np.ndarray


def read_task(file: Path) -> Task:
    """From a safetensors file with `input_ids` [Q, T] and, where the last position has an answer, `answer` [Q]."""
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{file} is no readable safetensors file: {error}") from error
    if "input_ids" not in stored or stored["input_ids"].ndim != 2:
        raise RequestError(f"{file} should hold input_ids [inputs, tokens] and perhaps answer [inputs]")
    answer = stored.get("answer")
    return Task(stored["input_ids"].astype(np.int64), None if answer is None else answer.astype(np.int64))


def usual_threshold(model: Model) -> float:
    """The halting threshold that the model has been trained with; raises RequestError where nothing halts."""
    knob = model.spec.exit.knob(HALT_THRESHOLD)
    if knob is None:
        raise RequestError(f"there is no halting to sweep: {model.spec.exit.meaning}")
    return knob.default


def settings_of(model: Model, most_loops: int, thresholds: tuple[float, ...]) -> tuple[Setting, ...]:
    """Every loop budget up to `most_loops`, halting as trained and not at all; every threshold at the largest."""
    budgets = range(1, most_loops + 1)
    usual, forever = usual_threshold(model), model.threshold(never(model))  # finite, as a report in JSON needs it
    by_loops = [Setting(MAX_LOOPS, loops, usual) for loops in budgets]
    by_threshold = [Setting(HALT_THRESHOLD, most_loops, threshold) for threshold in thresholds]
    forced = [Setting(FORCED_LOOPS, loops, forever) for loops in budgets]
    return (*by_loops, *by_threshold, *forced)


def sweep(
    model: Model, task: Task, settings: tuple[Setting, ...], seed: int = 0, progress: Callable[[], None] = lambda: None
) -> Sweep:
    """Measure; `progress` is called once per input."""
    random = np.random.default_rng(seed)
    figures = np.zeros((5, len(settings), len(task.ids)))
    for setting in settings:  # warm-up: a first call allocates
        model.forward(task.ids[0], max_loops=setting.max_loops)
    for q in range(len(task.ids)):
        for s in random.permutation(len(settings)):
            figures[:, s, q] = run(model, task, q, settings[s])
        progress()
    return Sweep(settings, *figures)


def run(model: Model, task: Task, q: int, setting: Setting) -> tuple[float, float, float, float, float]:
    """loss, right, depth, loops, seconds of one input at one setting."""
    ids = task.ids[q] if task.answer is not None else task.ids[q, :-1]
    started = time.perf_counter()
    output = model.forward(ids, max_loops=setting.max_loops, halt_threshold=setting.halt_threshold)
    seconds = time.perf_counter() - started
    asked = slice(-1, None) if task.answer is not None else slice(None)
    wanted = task.answer[q : q + 1] if task.answer is not None else task.ids[q, 1:]
    logits = output.logits[0, asked]
    bits = -log_softmax(logits.astype(np.float64), -1)[np.arange(len(wanted)), wanted] / np.log(2)
    right = float((logits.argmax(-1) == wanted).mean())
    return float(bits.mean()), right, float(output.depth[0, asked].mean()), float(output.loops), seconds
