"""Compile OpenMythos checkpoints into bundles whose recurrent loop is intact and halts by itself.

    from mythos_export import export

    result = export("step_0000010.pt", "bundle", target="tensorrt")
    result.parity.passed

The pipeline (`pipeline.py`), in the order the data flows:

    load      checkpoint -> Loaded          mythos_model.checkpoint, precision.py
    capture   LoopedModel -> Captured       capture.py     torch.export, the loop as one while_loop node
    lower     Captured -> Lowered           lower.py       ONNX with one Loop; passes/, kernels/
    build     Lowered -> Built              targets/       what a target adds: an engine, say
    package   Built -> Bundle               package.py     manifest, hashes
    verify    Bundle -> Verified            verify/        every artifact against the eager model, inside the loop too

All of it in a hidden folder, and then one rename: destination/.

Names are loaded when they are asked for: a command line's --help, or a look at a manifest, must not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mythos_runtime import __version__

if TYPE_CHECKING:
    from mythos_export.errors import ExportError
    from mythos_export.pipeline import Exported, export

__all__ = ["ExportError", "Exported", "__version__", "export"]


def __getattr__(name: str) -> Any:
    if name == "ExportError":
        from mythos_export.errors import ExportError

        return ExportError
    if name in ("Exported", "export"):
        from mythos_export import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
