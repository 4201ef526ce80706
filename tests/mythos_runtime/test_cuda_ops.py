"""Operators for ONNX Runtime's CUDA provider, which is not here: who asks for them is told; and what serves instead."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_bundles import Bundles

from mythos_runtime import cuda_ops, load, ort
from mythos_runtime.cuda_ops import CUDA_LIBRARY, CUDA_OPS, find_cuda_library
from mythos_runtime.errors import BackendMissing, RequestError

BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_they_are_only_taken_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_ops, "NATIVE", tmp_path)
    kernels = tmp_path / "bundle" / "kernels"
    assert find_cuda_library(kernels) is None
    monkeypatch.setenv(CUDA_OPS, "yes")
    with pytest.raises(RequestError, match="MYTHOS_CUDA_OPS is 'yes', expected 0 or 1"):
        find_cuda_library(kernels)
    monkeypatch.setenv(CUDA_OPS, "1")
    with pytest.raises(BackendMissing, match="bundle has no kernels: export it with --target cuda"):
        find_cuda_library(kernels)
    kernels.mkdir(parents=True)
    (kernels / "kernels.json").write_text("{}")
    with pytest.raises(BackendMissing, match="is not there: it is built on Linux, .* make native"):
        find_cuda_library(kernels)
    (tmp_path / CUDA_LIBRARY).touch()
    assert find_cuda_library(kernels) == tmp_path / CUDA_LIBRARY


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_leaves_the_cpu_with_its_own_operators(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's operators are not given to CUDA, whose nodes they would take, nor lost where it is not there."""
    bundle = bundles["mla_decode"]  # made before anything is another
    taken: list[tuple[list[str], str]] = []
    opened = ort.OrtSession._open

    def noted(
        self: ort.OrtSession, runtime: object, file: Path, options: object, providers: list[str], *rest: object
    ) -> None:
        opened(self, runtime, file, options, providers, *rest)  # type: ignore[arg-type]
        taken.append((providers, self._library.name if self._library else ""))

    monkeypatch.setattr(ort.OrtSession, "_open", noted)
    monkeypatch.setattr(ort, "_wanted_providers", lambda runtime, wanted: BOTH)
    own = ort.find_op_library()
    model = load(bundle)
    assert taken[0] == (BOTH, "") and taken[1] == (BOTH[1:], own.name if own else "")
    assert "CPUExecutionProvider" in model.session.description
    assert model.forward(np.arange(6).reshape(2, 3), max_loops=2).logits.shape[:2] == (2, 3)
    with pytest.raises(BackendMissing, match="CUDA was asked for, but ONNX Runtime fell back to CPUExecutionProvider"):
        load(bundle, provider="cuda")


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(not (cuda_ops.NATIVE / CUDA_LIBRARY).exists(), reason=f"{CUDA_LIBRARY} is not built: make native")
def test_a_session_takes_the_library(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered for a provider that is not here, it leaves every node to its body; damaged kernels are refused."""
    bundle = tmp_path / "b"
    shutil.copytree(bundles["mla_decode"], bundle)
    (bundle / "kernels").mkdir()
    (bundle / "kernels" / "kernels.json").write_text("{}")
    monkeypatch.setenv(CUDA_OPS, "1")
    monkeypatch.setattr(ort, "_wanted_providers", lambda runtime, wanted: BOTH)
    with pytest.raises(BackendMissing, match=r"kernels.json is not what this library launches from"):
        load(bundle)
