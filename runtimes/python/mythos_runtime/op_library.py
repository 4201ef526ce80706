"""The library of native operators for ONNX Runtime on the CPU: where it is, or why there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mythos_runtime.errors import BackendMissing
from mythos_runtime.session import NATIVE, OpLibrary

OP_LIBRARY_VARIABLE = "MYTHOS_OP_LIBRARY"
_LIBRARY_NAMES = {"win32": "mythos_ops.dll", "darwin": "libmythos_ops.dylib"}


def find_op_library(choice: OpLibrary = "auto") -> Path | None:
    """The library with native kernels of the mythos operators, or None to run their portable function bodies.

    "auto" looks at the variable MYTHOS_OP_LIBRARY (a path, or "none"), then for `native/` beside this file.

    Raises:
        BackendMissing: a library was named, and is not there.
    """
    named = os.environ.get(OP_LIBRARY_VARIABLE) if choice == "auto" else choice
    if choice == "auto" and named == "none":
        return None
    if named:
        path = Path(named).absolute()
        if not path.is_file():
            raise BackendMissing(f"the operator library {path} does not exist; build it, or run without one")
        return path
    if choice is None:
        return None
    path = NATIVE / _LIBRARY_NAMES.get(sys.platform, "libmythos_ops.so")
    return path if path.is_file() else None


def why_no_op_library() -> str | None:
    """Why a session runs the portable function bodies here, in words; None where it finds native operators."""
    try:
        if find_op_library() is not None:
            return None
    except BackendMissing as error:
        return str(error)
    if os.environ.get(OP_LIBRARY_VARIABLE) == "none":
        return f"{OP_LIBRARY_VARIABLE} is none: unset it"
    reason = NATIVE / "not_built.txt"
    if reason.is_file():
        return reason.read_text(encoding="utf-8").strip()
    return "the package was installed without them; run make native in its source"
