"""The engines that a test is for: Python's, and the C++ runtime's where it is built."""

from __future__ import annotations

import pytest

from mythos_runtime import Model
from mythos_runtime.engine.native import why_no_native_engine
from mythos_runtime.engine.python_rows import PythonRows
from mythos_runtime.engine.row_cache import Pool

_missing = why_no_native_engine()
needs_native = pytest.mark.skipif(_missing is not None, reason=f"{_missing}")
ENGINES = ("python", pytest.param("native", marks=needs_native))


def pool_of(model: Model) -> Pool:
    """What a model that Python runs has its caches and generations in."""
    assert isinstance(model.rows, PythonRows)
    return model.rows.pool
