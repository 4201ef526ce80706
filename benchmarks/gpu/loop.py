"""The 1b loop as CUDA graphs (halting by itself, driven from Python, of a fixed depth) against the loop in Python."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.cases import call_of, config_of, model_of, with_triton
from benchmarks.gpu.run import LIMITS, Run, distance
from mythos_model.drivers import goes_on, run_python
from mythos_model.state import Call, Carry
from mythos_runtime.device_loop.graphs import Graphs
from mythos_runtime.device_loop.loop import DeviceLoop


def main(run: Run) -> None:
    name = "fp16" if run.dry else "bf16"
    config = config_of("1b", run.dry)
    model = model_of(config, run.device, run.precisions[name])
    for S in (9,) if run.dry else (128, 1000):
        for kernels in ("triton", "plain"):
            with run.record.step(f"past {S} {kernels}"):
                inside = with_triton() if kernels == "triton" else contextlib.nullcontext()
                with inside:
                    run.record.say(f"past {S} {kernels}", _ways(run, model, S, LIMITS[name]))


def _graphs(run: Run) -> Graphs:
    if run.dry:
        from stand_ins import HostGraphs  # of tests/, which the keeper puts on the path

        return HostGraphs()  # type: ignore[no-any-return]
    from cuda.bindings import driver

    from mythos_runtime.device_loop.graphs import CudaGraphs

    return CudaGraphs(torch, driver)


def _ways(run: Run, model: Any, S: int, limit: float) -> dict[str, Any]:
    given = call_of(model, run.device, 1, 1, S)
    ids, lengths = given["input_ids"], given["past_lengths"]
    scalar: dict[str, Any] = {"device": run.device}
    call = Call(
        lengths.unsqueeze(1),
        lengths,
        torch.tensor(given["max_loops"], **scalar),
        torch.tensor(0.99, **scalar),
        torch.tensor(True, **scalar),
        given["past"],
    )
    context, _ = model.enter(ids, call)
    first = model.start(context)
    kind, count = type(first.exit), len(first.exit)

    def whole(state: tuple[Any, ...]) -> Carry:
        return Carry(state[0], state[1], kind(*state[2 : 2 + count]), *state[2 + count :])

    def flat(carry: Carry) -> list[Any]:
        return [carry.iteration, carry.h, *carry.exit, carry.running, carry.new_loop]

    start = flat(first)
    # What the context holds keeps its address, so that it is no argument; the threshold is changed in place.
    loop = DeviceLoop(
        lambda *state: goes_on(whole(state), context),
        lambda *state: flat(model.step(whole(state), context)),
        start,
        [],
        _graphs(run),
    )
    found: dict[str, Any] = {}
    thresholds = {"halting": 0.99, "every loop": 2.0, "early": 0.3, "at once": 0.0}
    for label, threshold in thresholds.items():
        context.halt_threshold.fill_(threshold)
        want = run_python(first, model.step, context)
        loops = int(want.iteration)
        row: dict[str, Any] = {"loops": loops}
        ways: dict[str, Callable[[], Any]] = {
            "graph": lambda: loop.run(start, []),
            "driven": lambda: loop.run_driven(start, []),
            "fixed": functools.partial(loop.run_fixed, start, [], loops),
            "python": lambda: flat(run_python(first, model.step, context)),
        }
        for way, go in ways.items():
            got = whole(tuple(go()))
            row[way] = {
                "loops": int(got.iteration),
                "depths_equal": bool(torch.equal(got.exit.depth, want.exit.depth)),
                "distance": distance(got.exit.answer, want.exit.answer),
                "us": round(run.seconds(go) * 1e6, 1),
            }
        row["ok"] = all(row[w]["depths_equal"] and row[w]["distance"] <= limit for w in ways)
        found[label] = row
    found["ok"] = all(row["ok"] for row in found.values())
    loop.close()
    return found
