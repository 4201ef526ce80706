"""The engines that a test is for: Python's, and the C++ runtime's where it is built."""

from __future__ import annotations

import pytest

from mythos_runtime.engine.native import why_no_native_engine

_missing = why_no_native_engine()
needs_native = pytest.mark.skipif(_missing is not None, reason=f"{_missing}")
ENGINES = ("python", pytest.param("native", marks=needs_native))
