"""The same schedules through the engine in Python and in C++.

A schedule is a line of JSON for `mythos_schedule` (runtimes/cpp/tests/schedule), and holds one of

    requests, arrivals (tick by request), cancels ([request, tick]), most_running, chunk, patience, loops_per_call,
    max_lag, scheduler_rows, taken, taken_states (loop pages and states that somebody else holds), broken (the sequence
    whose logits hold NaN), prefixes, speculate (the depth of drafts) and drafts (as many as there is use for, at most)
    acts: open, past (`row_models.fill_far`), feed, fork, truncate and close of sequences at the core

What came of it is compared as it is: tokens, depths, ends, logits as their bits, and the trace: every call of a graph
with the rows that it took, and the ticks between them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_programs import BUILD
from row_models import fill_far
from test_exact import Eager

from mythos_export.targets.cuda_lines import write_lines
from mythos_runtime.engine.chunks import Chunk, Leaving
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.pages import Table
from mythos_runtime.engine.request import Budget, Request, Running
from mythos_runtime.engine.sequence import Sequence, Span
from mythos_runtime.op_library import find_op_library
from mythos_runtime.row_ports import ENTER, LEAVE, PAGE, STEP
from mythos_runtime.sampling import SamplingOptions
from mythos_runtime.spec import LoopSpec

SCHEDULE = BUILD / "mythos_schedule"
ROWS, AROUND_PAGES, LOOP_PAGES, LINES = 64, 40, 160, 400  # of RowModel.core
_GIVES_UP = 20_000


class CppEngine:
    """A C++ engine with little memory, NaN in all that is nobody's; alive as long as it is wanted.

    Attributes:
        crossed: calls of ONNX Runtime, uploads and downloads of the schedule before, in a device's place.
    """

    crossed: tuple[int, int, int]

    def __init__(self, folder: Path, spec: LoopSpec, threads: int, device: bool = False) -> None:
        """`device`: on the CPU's memory in a device's place."""
        (folder / "spec.json").write_text(json.dumps(spec.to_json()))
        if device:
            write_lines(spec, folder)
        sizes = (threads, ROWS, AROUND_PAGES, LOOP_PAGES, LINES)
        self._process = subprocess.Popen(
            [SCHEDULE, folder, *map(str, sizes), *["device"] * device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MYTHOS_OP_LIBRARY": str(find_op_library())},
        )

    def run(self, schedule: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(schedule) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        assert answer, "mythos_schedule has ended: see its error"
        if "device" in answer:
            self.crossed = tuple(answer.pop("device"))
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=60)


class PythonEngine:
    """The same around a core of Python, which is left as it was found."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def run(self, schedule: dict[str, Any]) -> dict[str, Any]:
        core = self.core
        core.steps = core.rows = core.late = 0
        with pytest.MonkeyPatch.context() as patch, _clean(core):
            trace = _record(core, patch, schedule.get("broken", -1))
            result = _acts(core, schedule) if "acts" in schedule else _serve(core, schedule, trace)
        idle = core.around is None or core.around.free == core.around.pages
        idle = idle and core.loop.free == core.loop.pages and core.states.free == core.states.lines
        return {**result, "trace": trace, "steps": core.steps, "rows": core.rows, "late": core.late, "idle": idle}


def plain(request: Request) -> dict[str, Any]:
    """A request as a schedule has it."""
    given = asdict(request)
    sampling, budget = given.pop("sampling"), given.pop("budget")
    return {
        **given,
        "prompt": list(request.prompt),
        "eos": sorted(request.eos),
        "stop": [list(ids) for ids in request.stop],
        "depths": list(request.depths),
        "loops_per_token": budget and budget["loops_per_token"],
        "temperature": sampling["temperature"],
        "seed": sampling["seed"],
    }


def serving(requests: list[Request], arrivals: list[int], **options: Any) -> dict[str, Any]:
    """A schedule with the usual options."""
    usual = {"cancels": [], "taken": 0, "taken_states": 0, "max_lag": None, "scheduler_rows": ROWS, "most_running": 64}
    usual |= {"chunk": 64, "patience": 0.125, "loops_per_call": 16, "prefixes": 0, "speculate": None}
    return {**usual, "requests": [plain(each) for each in requests], "arrivals": arrivals, **options}


@contextlib.contextmanager
def _clean(core: Core) -> Iterator[None]:
    try:
        yield
    finally:
        for sequence in list(core.sequences):
            core.close(sequence)
        core.max_lag, core.scheduler.rows = None, core.graphs.most_rows


def _record(core: Core, patch: pytest.MonkeyPatch, broken: int) -> list[Any]:
    """What the graphs run from now on. Sequences are counted as they are opened."""
    trace: list[Any] = []
    names: dict[Sequence, int] = {}
    count = itertools.count()
    enter, step, leave, open_one = core.graphs.enter, core.graphs.step, core.graphs.leave, core.open

    def note(graph: str, spans: list[Span]) -> None:
        trace.append([graph, [[names[span.sequence], span.depth, span.first, span.last] for span in spans]])

    def noted_enter(states: Any, ids: np.ndarray, initial: Any, spans: list[Span], tables: Any) -> np.ndarray:
        note(ENTER, spans)
        return enter(states, ids, initial, spans, tables)

    def noted_step(states: Any, lines: np.ndarray, spans: list[Span], tables: Any) -> int:
        ran = step(states, lines, spans, tables)
        for ahead in range(ran):
            note(STEP, [span._replace(depth=span.depth + ahead) for span in spans])
        return ran

    def noted_leave(*arguments: Any) -> np.ndarray:
        spans = arguments[4]
        note(LEAVE, spans)
        logits = leave(*arguments)
        for index, span in enumerate(spans):
            if names[span.sequence] == broken:
                logits[index, 3] = np.nan
        return logits

    def noted_open(*arguments: Any) -> Sequence:
        sequence = open_one(*arguments)
        names[sequence] = next(count)
        return sequence

    patch.setattr(core.graphs, "enter", noted_enter)
    patch.setattr(core.graphs, "step", noted_step)
    patch.setattr(core.graphs, "leave", noted_leave)
    patch.setattr(core, "open", noted_open)
    return trace


def _serve(core: Core, schedule: dict[str, Any], trace: list[Any]) -> dict[str, Any]:
    taken = Table()
    core.loop.extend(taken, 0, schedule["taken"] * PAGE - 1)
    states = core.states.copy(np.zeros(schedule["taken_states"], np.int64))
    core.max_lag, core.scheduler.rows = schedule["max_lag"], schedule["scheduler_rows"]
    running: dict[int, Running] = {}
    logits: dict[Running, list[list[int]]] = {}
    try:
        engine = Engine(
            core,
            schedule["most_running"],
            schedule["chunk"],
            schedule["patience"],
            loops_per_call=schedule["loops_per_call"],
            prefixes=schedule["prefixes"],
            speculation=Eager(schedule["speculate"], schedule["drafts"]) if schedule["speculate"] else None,
        )
        speculation = engine.speculation
        requests = [_request(each) for each in schedule["requests"]]
        tick = 0
        while len(running) < len(requests) or engine.busy:
            for index, (request, arrival) in enumerate(zip(requests, schedule["arrivals"], strict=True)):
                if arrival == tick:
                    running[index] = engine.submit(request)
            for index, when in schedule["cancels"]:
                if when == tick and index in running:
                    engine.cancel(running[index])
            for token in engine.tick():
                logits.setdefault(token.running, []).append(_bits(token.logits))
            trace.append(tick)
            tick += 1
            assert tick < _GIVES_UP
        engine.close()
    finally:
        for sequence in list(core.sequences):
            core.close(sequence)
        core.loop.truncate(taken, 0)
        core.states.end(states.tolist())
    results = [
        {
            "tokens": each.tokens,
            "depth": each.depth,
            "finished": each.finished,
            "error": str(each.error or ""),
            "reused": each.reused,
            "capped": each.capped,
            "logits": logits.get(each),
        }
        for each in (running[index] for index in range(len(requests)))
    ]
    drafts = speculation and [speculation.drafted, speculation.accepted]
    return {"requests": results, "drafts": drafts}


def _request(given: dict[str, Any]) -> Request:
    options = dict(given)
    sampling = SamplingOptions(temperature=options.pop("temperature"), seed=options.pop("seed"))
    stop = tuple(tuple(ids) for ids in options.pop("stop"))
    loops = options.pop("loops_per_token")
    return Request(
        **{
            **options,
            "depths": tuple(options["depths"]),
            "budget": None if loops is None else Budget(loops),
            "sampling": sampling,
            "eos": frozenset(options["eos"]),
            "stop": stop,
        }
    )


def _acts(core: Core, schedule: dict[str, Any]) -> dict[str, Any]:
    known: list[Sequence] = []
    answers = []
    for act in schedule["acts"]:
        name = act["act"]
        if name == "open":
            known.append(core.open(act["limit"], act["threshold"]))
        elif name == "past":
            fill_far(core, known[act["sequence"]], act["length"])
        elif name == "fork":
            known.append(core.fork(known[act["sequence"]]))
        elif name == "truncate":
            core.truncate(known[act["sequence"]], act["length"])
        elif name == "close":
            core.close(known[act["sequence"]])
        else:
            fed = [known[index] for index, _ in act["chunks"]]
            core.enter([Chunk(known[index], np.array(ids)) for index, ids in act["chunks"]])
            while len(core.step(fed)) < len(fed):
                continue
            for answer in core.leave([Leaving(sequence, every=True) for sequence in fed]):
                answers.append({"logits": _bits(answer.logits), "depth": answer.depth.tolist()})
    return {"answers": answers}


def _bits(logits: np.ndarray) -> list[int]:
    bits: list[int] = np.ascontiguousarray(logits, np.float32).view(np.int32).ravel().tolist()
    return bits
