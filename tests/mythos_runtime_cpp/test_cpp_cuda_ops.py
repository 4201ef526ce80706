"""A bundle's kernels in ONNX Runtime's CUDA provider, which is not here: who asks the C++ runtime for them is told."""

from __future__ import annotations

import pytest
from cpp_programs import RUN, cpp, needs_cpp
from golden_bundles import Bundles

from mythos_runtime.cuda_ops import CUDA_OPS

pytestmark = needs_cpp


def test_what_they_cannot_do_here_is_told(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    run = (RUN, bundles["gqa_prefill"], "--ids", "1,2,3", "--max-new-tokens", "2")
    plain = cpp(*run)
    monkeypatch.setenv(CUDA_OPS, "1")
    assert cpp(*run).stdout == plain.stdout and plain.returncode == 0  # on the CPU it means nothing
    missing = cpp(*run, "--provider", "cuda")
    assert missing.returncode != 0 and "CUDA was asked for, but this ONNX Runtime is built without it" in missing.stderr
    monkeypatch.setenv(CUDA_OPS, "yes")
    senseless = cpp(*run)
    assert senseless.returncode != 0 and "MYTHOS_CUDA_OPS is 'yes', expected 0 or 1" in senseless.stderr
