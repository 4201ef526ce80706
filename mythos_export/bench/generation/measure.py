"""A whole run: bundle in, generation document out."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mythos_export.bench.backends.backend import Setting
from mythos_export.bench.depth_line import fit
from mythos_export.bench.generation.limit import CallLimit
from mythos_export.bench.generation.loads import EASY, Load, constant, from_rows, planted, recorded
from mythos_export.bench.generation.schedules import PROMPT, ByDepth, LockStep, Native, Run
from mythos_export.bench.limits import Limits, best_of
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_export.bench.resources import starting_on
from mythos_export.bench.settling import settle
from mythos_export.bench.statistics import median_interval
from mythos_export.errors import BenchError
from mythos_export.progress import Progress, silent
from mythos_runtime import read_manifest
from mythos_runtime.engine.bundled import check_rows
from mythos_runtime.engine.native import why_no_native_engine
from mythos_runtime.engine.options import MAX_LAG
from mythos_runtime.manifest import Manifest
from mythos_runtime.spec import LoopSpec

FORMAT, VERSION = "mythos-generation", 1
LAZY, FULL, NATIVE, LOCK_STEP = "lazy", "full", "lazy, native", "lock-step"
SCHEDULES = {
    LAZY: "Python's engine, every depth that is needed",
    FULL: "Python's engine, every depth of every token",
    NATIVE: "the native engine, every depth that is needed",
    LOCK_STEP: "the whole model's graph, every depth of every token, all sequences in one call",
}
LEAST_TOKENS, MOST_TOKENS = 8, 100
EASY_BEFORE = (32, 128)


@dataclass(frozen=True)
class GenerationOptions:
    """What to measure, and how long.

    Attributes:
        threads: CPU threads; None: one per physical core that this process may use.
        rounds: repetitions of everything, in turns.
        turn_seconds: about how long each of them takes in a round, at the pace of lock-step.
        sequences: how many generate at a time.
        trace: depths that `mythos run --depth-trace` recorded, to run beside the planted ones.
        command: what the report is to name as the command that made it.
    """

    threads: int | None = None
    rounds: int = 5
    turn_seconds: float = 1.0
    sequences: tuple[int, ...] = (1, 8, 16, 64)
    trace: Path | None = None
    command: str = "mythos bench --generation"


def measure_generation(bundle: Path, options: GenerationOptions, progress: Progress = silent) -> dict[str, Any]:
    """Measure a bundle and return the document; nothing is written.

    Raises:
        BenchError: the model answers with fewer tokens than can be timed, or a trace does not fit it.
        BundleError, BackendMissing: from loading the bundle; also where it has no row graphs.
    """
    manifest = read_manifest(bundle)
    spec = manifest.spec
    check_rows(bundle, manifest)
    if spec.max_output_tokens < 2 * LEAST_TOKENS:
        raise BenchError(
            f"{bundle.name} answers with at most {spec.max_output_tokens} tokens; generation is timed over "
            f"{2 * LEAST_TOKENS} or more"
        )
    cores = usable_cores(options.threads)
    threads = options.threads or len(cores)
    if threads > len(cores):
        raise BenchError(f"{threads} threads were asked for, and this process may use {len(cores)} cores")
    if options.trace is not None and spec.exit.knob("halt_threshold") is None:
        raise BenchError(f"--depth-trace: the depths of this model are not chosen token by token: {spec.exit.meaning}")
    trace = None if options.trace is None else recorded(options.trace, spec.trained_loops)
    machine = describe_machine(threads, cores)
    with starting_on(cores):  # the threads of sessions too
        run, loads, rates = _measured(bundle, manifest, threads, trace, options, progress)
    shared = [load for load in loads if load.shared]
    summed = best_of(rates)
    limit = CallLimit(bundle, summed)
    one = [run.row(load, 1, limit) for load in loads]
    return {
        "format": FORMAT,
        "version": VERSION,
        "command": options.command,
        "bundle": {
            "name": bundle.resolve().name,
            "source": manifest.source.name,
            "precision": manifest.precision,
            "doubt": manifest.doubt,
        },
        "machine": machine,
        "method": {
            "rounds": options.rounds,
            "prompt": PROMPT,
            "max_lag": MAX_LAG,
            "schedules": {name: SCHEDULES[name] for name in run.schedules},
        },
        "trained_loops": spec.trained_loops,
        "limits": summed,
        "one": one,
        "line": _line(one),
        "many": [run.row(load, n, limit) for load in shared for n in options.sequences],
        "hard_tokens": run.hard_rows(),
    }


def _measured(
    bundle: Path, manifest: Manifest, threads: int, trace: Load | None, options: GenerationOptions, progress: Progress
) -> tuple[_Measuring, list[Load], list[dict[str, Any]]]:
    """All rounds: what was measured, of which loads, and the machine's limits in each."""
    spec = manifest.spec
    progress("load")
    limits = Limits()
    limits.load(Setting(bundle, None, threads, bundle))
    native = None if why_no_native_engine() else Native(bundle, spec, threads)
    run = _Measuring(ByDepth(bundle, manifest, threads), native, LockStep(bundle, threads), spec, options)
    loads, rates = _loads(spec, trace, run), []
    for number in range(options.rounds):
        said = f"round {number + 1} of {options.rounds}"
        rates.append(json.loads(json.dumps(limits.measure("limits", 0.02))))
        for load in loads:
            progress(f"{said}: one sequence, {load.name}")
            run.take(load, 1)
        for sequences in options.sequences:
            for load in loads:
                if load.shared:
                    progress(f"{said}: {sequences} sequences, {load.name}")
                    run.take(load, sequences)
        progress(f"{said}: a hard token behind easy ones")
        run.take_hard_tokens()
    return run, loads, rates


def _loads(spec: LoopSpec, trace: Load | None, run: _Measuring) -> list[Load]:
    """Planted ones, the model's own, and a recorded one; of a model that does not halt, all loops."""
    if spec.exit.knob("halt_threshold") is None:
        return [constant(spec.trained_loops)]
    return [*planted(spec.trained_loops), run.own_depths(), *([trace] if trace else [])]


class _Measuring:
    """What was measured so far, by load, number of sequences and schedule."""

    def __init__(
        self, engine: ByDepth, native: Native | None, lock_step: LockStep, spec: LoopSpec, options: GenerationOptions
    ) -> None:
        self.engine, self.native, self.lock_step, self.spec, self.options = engine, native, lock_step, spec, options
        self.schedules = [schedule for schedule in SCHEDULES if native is not None or schedule != NATIVE]
        self._runs: dict[tuple[str, int, str], list[Run]] = {}
        self._hard: dict[tuple[int, int | None], list[float]] = {}
        self._tokens: dict[int, int] = {}
        self._random = np.random.default_rng(11)

    def take(self, load: Load, sequences: int) -> None:
        """One round of a load, the schedules in turns."""
        prompts, tokens = self._prompts(sequences), self._tokens_of(sequences)
        given = load if self.spec.exit.knob("halt_threshold") else None
        for schedule in self.schedules:
            settle()
            if schedule == LOCK_STEP:
                made = self.lock_step.run(prompts, tokens)
            elif schedule == NATIVE:
                assert self.native is not None
                made = self.native.run(prompts, tokens, given, MAX_LAG)
            else:
                made = self.engine.run(prompts, tokens, given, "lazy" if schedule == LAZY else "full", MAX_LAG)
            self._runs.setdefault((load.name, sequences, schedule), []).append(made)

    def take_hard_tokens(self) -> None:
        """One round of the waits for a hard token, with and without the cap on the lag."""
        if self.spec.exit.knob("halt_threshold") is None:
            return
        deepest, (prompt,) = self.spec.trained_loops, self._prompts(1)
        shallow = min(EASY, deepest)
        for easy in (0, *(n for n in EASY_BEFORE if n < min(self.spec.max_output_tokens, self._room() // 2))):
            for lag in (None, MAX_LAG) if easy else (None,):
                settle()
                seconds = self.engine.hard_token(prompt, max(easy, 2), shallow if easy else deepest, deepest, lag)
                self._hard.setdefault((easy, lag), []).append(seconds)

    def own_depths(self) -> Load:
        """What the model decides, on random prompts."""
        tokens = min(self.spec.max_output_tokens, self._room()) // 2
        return from_rows(
            "as the model decides",
            [list(row) for row in self.engine.depths(self._prompts(8), min(tokens, MOST_TOKENS))],
            self.spec.trained_loops,
        )

    def row(self, load: Load, sequences: int, limit: CallLimit) -> dict[str, Any]:
        """A load's schedules, over all rounds."""
        runs = {schedule: self._runs[load.name, sequences, schedule] for schedule in self.schedules}
        row: dict[str, Any] = {"load": load.name, "sequences": sequences, "tokens": runs[LAZY][0].tokens}
        for schedule, each in runs.items():
            seconds = median_interval([run.per_token for run in each])
            row[schedule] = {
                "seconds_per_token": vars(seconds),
                "tokens_per_second": 1 / seconds.median,
                "mean_depth": float(np.mean([run.depth for run in each])),
            }
        for schedule in self.schedules[:-1]:
            ratios = [a.per_token / b.per_token for a, b in zip(runs[LOCK_STEP], runs[schedule], strict=True)]
            row[schedule]["times_lock_step"] = vars(median_interval(ratios))
        for schedule in (LAZY, FULL):
            last = runs[schedule][-1]
            calls = Counter((graph, rows) for graph, rows, _ in last.calls)
            rows = sum(rows for graph, rows, _ in last.calls if graph == "step")
            row[schedule] |= {
                "limit_seconds_per_token": limit.seconds(calls.elements()) / last.tokens,
                "calls_per_token": sum(calls.values()) / last.tokens,
                "share_outside_calls": 1 - sum(seconds for *_, seconds in last.calls) / last.seconds,
                "step_rows_per_call": rows / max(sum(n for (graph, _), n in calls.items() if graph == "step"), 1),
                "late_share": last.late / max(rows, 1),
                "pages": last.pages,
                "page_bytes": last.bytes,
            }
        return row

    def hard_rows(self) -> list[dict[str, Any]]:
        return [
            {"easy_before": easy, "max_lag": lag, "seconds": vars(median_interval(seconds))}
            for (easy, lag), seconds in self._hard.items()
        ]

    def _prompts(self, sequences: int) -> np.ndarray:
        return self._random.integers(0, self.spec.vocab_size, (sequences, PROMPT))

    def _room(self) -> int:
        return self.spec.max_seq_len - PROMPT

    def _tokens_of(self, sequences: int) -> int:
        """For a turn of about `turn_seconds` in lock-step."""
        if sequences not in self._tokens:
            self.lock_step.run(self._prompts(sequences), 2)
            pace = self.lock_step.run(self._prompts(sequences), 3).seconds / 3
            most = min(MOST_TOKENS, self.spec.max_output_tokens // 2, self._room() // 2)
            self._tokens[sequences] = int(np.clip(self.options.turn_seconds / pace, LEAST_TOKENS, most))
        return self._tokens[sequences]


def _line(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Cost against depth of one sequence whose tokens are all alike, and how far the other loads are above it."""
    alike = [row for row in rows if row["load"].startswith("every token")]
    found = fit({round(row[LAZY]["mean_depth"]): [row[LAZY]["seconds_per_token"]["median"]] for row in alike})
    if found is None:
        return None
    fixed, step = found.fixed.median, found.per_loop.median
    above = {}
    for row in rows:
        over = row[LAZY]["seconds_per_token"]["median"] - fixed
        above[row["load"]] = over / (step * row[LAZY]["mean_depth"])
    return {"fixed_seconds": fixed, "step_seconds": step, "misfit": found.misfit, "times_mean_depth": above}
