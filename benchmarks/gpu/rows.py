"""The engine with its row graphs on the device: equal depths and tokens, and its speed beside lock-step."""

from __future__ import annotations

import functools
import itertools
import time
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.gpu.cases import call_of, config_of, model_of, with_triton
from benchmarks.gpu.run import Run
from mythos_export.capture import capture_rows
from mythos_export.kernels.eager import register
from mythos_model import MythosModel
from mythos_runtime.engine import Request
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.device.captures import Captures, CudaCaptures, Direct
from mythos_runtime.engine.device.graphs import DeviceGraphs
from mythos_runtime.engine.device.memory import DeviceStates, TorchPlace
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.spec import LoopSpec

_SEQUENCES = (1, 16, 64)
_PROMPT, _TOKENS = 128, 16


def main(run: Run) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    words = register(run.device)
    kinds: tuple[Literal["mla", "gqa"], ...] = ("mla", "gqa")
    for attention, int8_cache in itertools.product(kinds, (False, True)):
        label = f"{attention}{', int8 pages,' if int8_cache else ''} equal"
        with run.record.step(label):
            run.record.say(label, {"operators": words, **_equal(run, attention, int8_cache)})
    if run.select != "equal":
        with run.record.step("speed"):
            _speed(run)


def near_of(spec: LoopSpec) -> float:
    """How far apart logits may be, of the largest: float32 on two devices; over int8 pages a value in the middle of two
    integers may be rounded to either."""
    return 1e-3 if spec.int8_cache else 1e-4


def core_of(model: MythosModel, device: str, captures: Captures, room: Room) -> Core:
    """An engine's core over a model's row graphs, traced here and moved to a device."""
    captured = capture_rows(model)
    assert captured is not None
    program = captured.program
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    place = TorchPlace(torch, device)
    memory = Memory.with_room(model.spec, room, place, functools.partial(DeviceStates, place=place))
    programs = cut(program.module(), model.spec.graphs)
    return Core(DeviceGraphs(model.spec, programs, place, captures, memory, 256), memory)


def _captures(run: Run) -> Captures:
    return Direct() if run.dry else CudaCaptures(torch)


def _equal(run: Run, attention: Literal["mla", "gqa"], int8_cache: bool) -> dict[str, Any]:
    """Small requests of several thresholds, on the device with captured calls and on the CPU without."""
    model = model_of(config_of("", dry=True), "cpu", torch.float32, attention).with_int8_cache(int8_cache)
    room = Room(16, 64, 256)
    found = [answers_of(core_of(model, *where, room)) for where in ((run.device, _captures(run)), ("cpu", Direct()))]
    (got, got_logits), (want, want_logits) = found
    far = float(np.abs(got_logits - want_logits).max() / np.abs(want_logits).max()) if got == want else None
    depths = sorted({depth for _, each in want for depth in each})
    return {"equal": got == want, "logits": far, "depths": depths, "ok": far is not None and far <= near_of(model.spec)}


def answers_of(core: Core) -> tuple[list[tuple[list[int], list[int]]], np.ndarray]:
    """Tokens and depths of each request, and all logits."""
    r, vocabulary = np.random.default_rng(1), core.graphs.spec.vocab_size
    core.reserve(Room(16, 16 * core.graphs.spec.trained_loops, 256))
    engine = Engine(core, patience=0.5)
    running = [
        engine.submit(Request(r.integers(0, vocabulary, length).tolist(), max_new_tokens=8, halt_threshold=threshold))
        for length, threshold in ((3, 0.99), (33, 0.5), (1, 0.8), (17, 0.9))
    ]
    logits: list[list[np.ndarray]] = [[] for _ in running]
    while engine.busy:
        for token in engine.tick():
            logits[running.index(token.running)].append(token.logits)
    return [(each.tokens, each.depth) for each in running], np.concatenate([np.stack(each) for each in logits])


def _speed(run: Run) -> None:
    """The 1b in float16: tokens a second of the engine, and of one call of the whole model a token for all."""
    config, dtype = config_of("1b", run.dry), torch.float32 if run.dry else torch.float16
    model = model_of(config, "cpu", dtype)
    counts = (1, 2) if run.dry else _SEQUENCES
    prompt, tokens = (4, 2) if run.dry else (_PROMPT, _TOKENS)
    most = max(counts)
    room = Room.of(most, prompt + tokens, config.max_loop_iters)
    core = core_of(model, run.device, _captures(run), room)
    whole = model.to(run.device)
    r = np.random.default_rng(0)
    for count in counts:
        row: dict[str, Any] = {"sequences": count}
        for depth in (1, config.max_loop_iters // 2, config.max_loop_iters):
            prompts = r.integers(0, config.vocab_size, (count, prompt)).tolist()
            depths = (depth,) * tokens
            for _ in range(1 if run.dry else 2):  # the first one captures
                row[f"engine, depth {depth}, tokens_per_second"] = round(_generated(run, core, prompts, depths), 1)
        inputs = call_of(whole, run.device, count, 1, prompt)
        with with_triton():
            seconds = run.seconds(functools.partial(whole, **inputs, halt_threshold=2.0), 7)
        row["lock-step, every loop, tokens_per_second"] = round(count / seconds, 1)
        run.record.say(f"speed, {count} sequences", row)


def _generated(run: Run, core: Core, prompts: list[list[int]], depths: tuple[int, ...]) -> float:
    """New tokens a second behind the prompts, all of the given depths."""
    engine = Engine(core, most_running=len(prompts))
    for prompt in prompts:
        engine.submit(Request(prompt, max_new_tokens=len(depths), depths=depths, max_loops=max(depths)))
    count = 0
    begun = time.perf_counter()
    while engine.busy:
        found = len(engine.tick())
        if not count and found:
            begun = time.perf_counter()  # the prompts are through
        count += found
    run.synchronize()
    seconds = time.perf_counter() - begun
    engine.close()
    return max(count - len(prompts), 1) / seconds
