"""Is the artifact the same function? Every stage is held to the float64 model, inside the loop too.

    parity = verify_bundle(folder, manifest)     # the bundle's golden cases, on this machine
    parity.passed, parity.verdict()
    parity.to_json()                             # schema: parity.py

In the order the data flows:

    cases         questions: fixed, given, random
    truth         their answers by the float64 model, and by eager PyTorch at the export's precision
    tolerances    what that errs, times a factor: how far a stage may be off, tensor by tensor
    golden        all of it, in the bundle
    stages/       every artifact in every runner, with the same few methods
    twin          the shipped ONNX graph with its loop made visible
    tensorrt_network/   TensorRT's own reading of the graph, run on the CPU
    compare       one answer against the truth, in the order of the dataflow
    locate        the operator at which a wrong stage begins to be wrong
    reproduction  a failure made small, saved, replayed
    results, parity     the outcome; growth and generation are parts of it
    page          the outcome as reports/parity.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mythos_export.verify.golden import GOLDEN, Golden, make_golden, save_golden
    from mythos_export.verify.parity import Parity
    from mythos_export.verify.run import verify_bundle

__all__ = ["GOLDEN", "Golden", "Parity", "make_golden", "save_golden", "verify_bundle"]


def __getattr__(name: str) -> Any:  # the interpreter's process imports this package, and must not wait for torch
    import importlib

    homes = {"Parity": "parity", "verify_bundle": "run"}
    if name in __all__:
        return getattr(importlib.import_module(f"mythos_export.verify.{homes.get(name, 'golden')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
