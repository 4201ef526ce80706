"""The process in which TensorRT parses and the interpreter runs: `python -m ... MODULE ONNX`.

The parser can abort its process, so it gets one of its own. It answers one request after another, a JSON object a
line on stdin: {"inputs": npz, "outputs": npz, "keep": [names], "whole": iteration or null}. Events go to stdout as in
`targets/tensorrt_build/worker.py`; the arrays into the npz: `around/NAME`, `kept/NAME` (stacked), `whole/NAME`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import numpy as np

from mythos_export.targets.tensorrt_build.worker import Events, JobError, make_logger, parse
from mythos_export.verify.tensorrt_network.interpreter import LayerFailed, Run, run
from mythos_export.verify.tensorrt_network.layers import UnknownLayer
from mythos_export.verify.tensorrt_network.network import Network, read


def serve(network: Network, events: Events) -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        with np.load(request["inputs"]) as file:
            inputs = {name: file[name] for name in file.files}
        result = run(network, inputs, request["keep"], request["whole"])
        np.savez(request["outputs"], **arrays(network, result, request))  # type: ignore[arg-type]
        events.send("answer")


def arrays(network: Network, result: Run, request: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of an answer by their names in the file."""
    names = result.values if request["whole"] is not None else network.outputs
    found = {f"around/{name}": result.values[name] for name in names}
    for name in request["keep"]:
        steps = [values[name] for values in result.iterations if name in values]
        if steps:
            found[f"kept/{name}"] = np.stack(steps)
    if request["whole"] is not None and request["whole"] < len(result.iterations):
        found |= {f"whole/{name}": array for name, array in result.iterations[request["whole"]].items()}
    return found


def main(module: str, onnx: str) -> int:
    # TensorRT prints to the C stdout now and then: keep a private copy for events and send the rest to the log.
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    events = Events(stream)
    try:
        trt = importlib.import_module(module)
        logger = make_logger(trt, verbose=False)
        builder = trt.Builder(logger)
        parsed = parse(trt, logger, builder, onnx)
        network = read(parsed, trt)
        events.send("ready", kinds=dict(network.kinds))
        serve(network, events)
    except JobError as error:
        events.send("error", kind=error.kind, message=str(error), details=error.details)
        return 1
    except (UnknownLayer, LayerFailed) as error:
        events.send("error", kind="interpreter", message=str(error), details=[])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
