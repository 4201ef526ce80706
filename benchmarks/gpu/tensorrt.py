"""What TensorRT is there, and whether it takes the engines of the bundles on this GPU."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.gpu.run import Run


def main(run: Run) -> None:
    for name in ("tensorrt", "tensorrt_lean", "tensorrt_rtx"):
        try:
            trt: Any = importlib.import_module(name)
        except ImportError as error:
            run.record.say(name, f"absent: {error}")
            continue
        with run.record.step(name):
            found: dict[str, Any] = {"version": trt.__version__}
            if not run.dry:  # without a GPU there is no runtime
                runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
                for engine in sorted(run.bundles.glob("*/engines/*.engine"))[:4]:
                    loaded = runtime.deserialize_cuda_engine(engine.read_bytes())
                    found[engine.relative_to(run.bundles).as_posix()] = "refused" if loaded is None else "loaded"
            run.record.say(name, found)
