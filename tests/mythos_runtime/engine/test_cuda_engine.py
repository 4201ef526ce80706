"""The engine in ONNX Runtime on the compiled kernels' launcher, with a stand-in for the driver. On no GPU."""

from __future__ import annotations

import pytest
from stand_in_gpu import LIBRARY
from stand_in_process import check

from mythos_runtime.ort import find_op_library

pytestmark = [
    pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native"),
    pytest.mark.skipif(find_op_library() is None, reason="the native operators are not built: make native"),
]


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        pytest.param("mla_decode", "fp32"),
        pytest.param("gqa_prefill", "fp32", marks=pytest.mark.slow),
        pytest.param("mla_decode", "int8", marks=pytest.mark.slow),
        pytest.param("gqa_prefill", "int4", marks=pytest.mark.slow),
    ],
)
def test_tokens_and_depths_are_those_of_the_cpu(case: str, precision: str) -> None:
    check("engine_ops.py", asked=(f"{case}:{precision}",))
