"""The engine in ONNX Runtime on a device, without one: its row graphs on the library built for the CPU provider, with
the stand-in for the driver, beside the engine on the CPU.

    python engine_ops.py CASE:PRECISION[:CACHE] ...        # golden models; prints, as JSON, what went wrong with each

A program of its own: see `stand_in_gpu`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from golden_bundles import GOLDEN, config_of
from stand_in_gpu import LIBRARY, Gpu, write_kernels

from mythos_export.kernels.launch_plan import PRECISIONS
from mythos_export.kernels.op import calls_of
from mythos_export.kernels.triton_build import plans_for
from mythos_export.making import load, make
from mythos_export.targets.cuda_lines import write_lines
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions
from mythos_runtime.cuda_ops import KERNELS_ENTRY
from mythos_runtime.engine import Request
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.graphs import RowGraphs
from mythos_runtime.engine.memory import Memory, Room
from mythos_runtime.engine.ort_device.device import OrtDevice
from mythos_runtime.engine.ort_device.opening import OrtRows
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.session import Options
from mythos_runtime.spec import LoopSpec

NEAR = 2e-5  # of the largest logit
NEAR_ROUNDED = 1e-3  # where a value in the middle of two integers may be rounded to either
NEAR_HALF = 2e-2  # in float16, which on the CPU is as far from float32
Answers = list[tuple[list[int], list[int], np.ndarray]]


def answers(core: Core, spec: LoopSpec) -> Answers:
    """What requests come to beside each other: one behind a page, one of a token, one that shares what a halted token
    left, and one that begins as another did."""
    r = np.random.default_rng(3)
    engine, common = Engine(core, patience=0.5, prefixes=2), r.integers(0, spec.vocab_size, 34).tolist()
    every = [
        Request(common, max_new_tokens=3, halt_threshold=0.5),
        Request([5], max_new_tokens=3, halt_threshold=0.5),
        Request([7, 8, 9], max_new_tokens=3, policy="share", halt_threshold=0.5),
        Request([*common, 7], max_new_tokens=2, halt_threshold=0.5),
    ]
    logits: dict[Any, list[np.ndarray]] = {}
    running = []
    for some in (every[:-1], every[-1:]):
        running += [engine.submit(request) for request in some]
        while engine.busy:
            for token in engine.tick():
                logits.setdefault(token.running, []).append(token.logits)
    assert running[-1].reused == len(common)
    engine.close()
    return [(each.tokens, each.depth, np.stack(logits[each])) for each in running]


def run(gpu: Gpu, bundle: Path, case: str, precision: str, cache: str = "") -> None:
    """The tokens, depths and logits of the CPU's engine; every operator that has kernels was launched, and no pages
    were copied."""
    source = load(GOLDEN / case / "model.safetensors", precision, int8_cache=cache == "int8", **config_of(case))
    make(source, bundle, find_target("onnx"), TargetOptions(precision, int8_cache=cache == "int8"))
    spec = source.model.spec
    calls = [call for graph in GRAPHS for call in calls_of(ir.load(bundle / f"{graph}.onnx"))]
    made = [(call, plans_for([call], precision if precision in PRECISIONS else "fp32")) for call in calls]
    room = Room(8, 8 * spec.trained_loops, 160)

    def open_cpu(graph: str) -> OrtSession:
        return OrtSession(bundle / f"{graph}.onnx", spec.graphs[graph], Options(1, provider="cpu"))

    memory = Memory.with_room(spec, room)
    expected = answers(Core(RowGraphs(spec, open_cpu, memory, 64, spec.max_seq_len), memory), spec)
    assert len({depth for _, each, _ in expected for depth in each}) > 1  # or nobody lags
    folder = bundle / "device"
    folder.mkdir()
    for graph in GRAPHS:  # weights mapped from a file may begin anywhere; on a GPU none do
        onnx.save(onnx.load(bundle / f"{graph}.onnx"), folder / f"{graph}.onnx")
    write_lines(spec, folder)
    gpu.specs = write_kernels(folder, made)

    def open_there(file: str, ports: Ports) -> OrtSession:
        options = Options(1, provider="cpu", op_library=LIBRARY)
        return OrtSession(folder / file, ports, options, {KERNELS_ENTRY: str(folder)})

    rows = OrtRows.of(spec, OrtDevice("cpu"), open_there)
    memory = rows.memory(room)
    gpu.launched.clear()
    try:
        got = answers(Core(rows.graphs(memory, 64), memory), spec)
    except Exception as error:
        raise AssertionError(gpu.error or str(error)) from error
    for (tokens, depth, logits), (true_tokens, true_depth, true_logits) in zip(got, expected, strict=True):
        assert (tokens, depth) == (true_tokens, true_depth), (tokens, depth, true_tokens, true_depth)
        far = float(np.abs(logits - true_logits).max() / np.abs(true_logits).max())
        assert far <= (NEAR_HALF if precision == "fp16" else NEAR_ROUNDED if spec.int8_cache else NEAR), far
    launched = {gpu.specs[name].operator for name, *_ in gpu.launched}
    assert launched == {call.operator for call, plans in made if plans}, launched
    assert gpu.driver.stand_in_held() == 0 and gpu.driver.stand_in_copied() == 0  # pages are written where they are


def main() -> None:
    gpu, found = Gpu(), {}
    for asked in sys.argv[1:]:
        try:
            with tempfile.TemporaryDirectory() as place:
                run(gpu, Path(place), *asked.split(":"))
            found[asked] = ""
        except BaseException:
            found[asked] = str(traceback.format_exc())[:6000]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
