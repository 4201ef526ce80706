"""Products with int8 and int4 weights, activations in float32 and in int8, as ratios of one process.

    python -m benchmarks.rounded_products [--threads 1] [--seconds 2] [--out FILE]

A linear layer of 2048 inputs over ONNX Runtime, for one row (32768 outputs: more than the caches hold) and for 128 rows
(4096 outputs), every form in turns with the others, the best of each kept: so a busy machine disturbs all alike;
with one thread it is the process's CPU time. `weights` are billions a second, `of_float32_bytes` the rate at which a
form reads compared with that of the float32 layer, which is close to what memory gives. Where OpenVINO is installed its
products take part. MYTHOS_OPS_ISA=avx2 measures that form of the kernels, without OpenVINO. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort  # type: ignore[import-untyped]
import torch

from benchmarks.kernels_cpu import in_turns
from benchmarks.peers import openvino_products
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_export.kernels.library import describe
from mythos_model.formats import FORMATS, PLAIN
from mythos_runtime.op_library import find_op_library

INPUTS, SHAPES = 2048, {1: 32768, 128: 4096}
_TYPES = {"float32": "float", "float16": "float16", "int8": "int8", "uint8": "uint8"}


def product(form: str, tokens: int, rows: int, threads: int) -> tuple[Callable[[], Any], int]:
    """(run once, bytes of the weights) of a layer with random integers; speed does not depend on the values."""
    r, lay = np.random.default_rng(0), FORMATS[form]
    if form == PLAIN:
        tensors = {"weight": np.tile(r.standard_normal((64, INPUTS), np.float32), (rows // 64, 1))}
    else:
        most = 2 ** (lay.bits - 1) - 1
        few = lay.lay_out(torch.from_numpy(r.integers(-most, most + 1, (64, INPUTS), np.int8))).numpy()
        tensors = {"weight": np.tile(few, (rows // 64, 1, 1, 1))}
        tensors["scale"] = np.full((rows // lay.tile, INPUTS // lay.block, lay.tile), 0.01, np.float16)
    inputs = {"x": r.standard_normal((tokens, INPUTS), np.float32), **tensors}
    said = "" if form == PLAIN else f', format = "{form}"'
    declared = ", ".join(f"{_TYPES[v.dtype.name]}[{','.join(map(str, v.shape))}] {k}" for k, v in inputs.items())
    text = f"""<ir_version: 10, opset_import: ["" : 21, "mythos" : 1]> g ({declared}) => (float[N, M] y)
        {{ y = mythos.linear <rows = {rows}{said}> ({", ".join(inputs)}) }}"""
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(find_op_library()))
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Threads that wait for the next call by spinning would take a core from whoever has the next turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(
        onnx.parser.parse_model(text).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in inputs.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y")

    def run(_alive: object = values) -> None:
        session.run_with_iobinding(binding)

    return run, sum(value.nbytes for value in tensors.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    library = find_op_library()
    if library is None:
        parser.error("the CPU kernels are not built: make native")
    isa = os.environ.get("MYTHOS_OPS_ISA") or next(iter(describe(library)["isas"]))
    found: dict[str, Any] = {"isa": isa, "threads": given.threads, "machine": describe_machine(1, usable_cores(1))}
    for tokens, rows in SHAPES.items():
        made = {form: product(form, tokens, rows, given.threads) for form in FORMATS if FORMATS[form].native}
        if openvino_products.available() and "MYTHOS_OPS_ISA" not in os.environ:
            for form in openvino_products.FORMS:
                theirs = openvino_products.product(form, tokens, rows, INPUTS, given.threads)
                made[f"OpenVINO {form}"] = theirs, made[PLAIN if form == "float32" else form][1]
        clock = time.process_time if given.threads == 1 else time.perf_counter
        times = dict(zip(made, in_turns([run for run, _ in made.values()], given.seconds, clock), strict=True))
        lines = {}
        for form, seconds in times.items():
            rate = made[form][1] / seconds / (made[PLAIN][1] / times[PLAIN])
            lines[form] = {
                "ms": round(1e3 * seconds, 3),
                "weights": round(rows * INPUTS / seconds / 1e9, 2),
                "gflops": round(2e-9 * tokens * rows * INPUTS / seconds, 1),
                "of_float32_bytes": round(rate, 3),
                "over_float32": round(times[PLAIN] / seconds, 2),
            }
            print(f"{isa} {given.threads} thread(s) {tokens:4} rows {form:7} {lines[form]}", flush=True)
        found[f"{tokens} rows"] = lines
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
