"""Operators for ONNX Runtime's CUDA provider, which is not here: who asks for them is told; and what serves instead."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from golden_bundles import Bundles

from mythos_runtime import cuda_ops, load, ort, session
from mythos_runtime.cuda_ops import CUDA_LIBRARY, CUDA_OPS, find_cuda_library
from mythos_runtime.errors import BackendMissing, RequestError
from mythos_runtime.op_library import find_op_library

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
    assert find_cuda_library(kernels, None) is None  # portable bodies are asked for by name


def test_a_session_on_the_cpu_says_that_it_has_none(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles["mla_decode"]
    assert CUDA_OPS not in load(bundle).session.description
    monkeypatch.setenv(CUDA_OPS, "1")
    assert "(MYTHOS_CUDA_OPS is for CUDA alone)" in load(bundle).session.description
    assert CUDA_OPS not in load(bundle, op_library=None).session.description
    monkeypatch.setenv(CUDA_OPS, "yes")
    with pytest.raises(RequestError, match="MYTHOS_CUDA_OPS is 'yes', expected 0 or 1"):
        load(bundle)


class OnCuda:
    """A session that says that it runs there."""

    def __init__(self, file: str, settings: object, providers: list[str], options: list[dict[str, str]]) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        assert providers == BOTH and options == [{"use_tf32": "0"}, {}]  # float32 products stay float32
        self._session = onnxruntime.InferenceSession(file, settings, providers=BOTH[1:])

    def get_providers(self) -> list[str]:
        return BOTH

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


def test_a_library_for_the_cpu_is_not_dropped_without_a_word_on_cuda(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, runtime = bundles["mla_decode"], SimpleNamespace(**vars(importlib.import_module("onnxruntime")))
    runtime.InferenceSession = OnCuda
    monkeypatch.setattr(ort, "wanted_providers", lambda runtime, wanted: BOTH)
    known = importlib.import_module
    monkeypatch.setattr(ort.importlib, "import_module", lambda name: runtime if name == "onnxruntime" else known(name))
    monkeypatch.setattr(ort, "_cuda_runtime", lambda: None)
    with pytest.raises(RequestError, match="library .*some.so is for the CPU, and this session is on CUDA: take prov"):
        load(bundle, op_library=tmp_path / "some.so")
    assert ort.OP_LIBRARY_VARIABLE not in load(bundle).session.description
    monkeypatch.setenv(ort.OP_LIBRARY_VARIABLE, str(tmp_path / "some.so"))
    assert load(bundle).session.description.endswith("portable operators (MYTHOS_OP_LIBRARY is for the CPU alone)")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_leaves_the_cpu_with_its_own_operators(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's operators are not given to CUDA, whose nodes they would take, nor lost where it is not there."""
    bundle = bundles["mla_decode"]  # made before anything is another
    taken: list[tuple[list[str], str]] = []
    opened = ort.open_inference

    def noted(runtime: object, file: Path, options: session.Options, providers: list[str], entries: Any) -> Any:
        found, library = opened(runtime, file, options, providers, entries)
        taken.append((providers, library.name if library else ""))
        return found, library

    monkeypatch.setattr(ort, "open_inference", noted)
    monkeypatch.setattr(ort, "wanted_providers", lambda runtime, wanted: BOTH)
    own = find_op_library()
    model = load(bundle, engine="python")
    assert taken[0] == (BOTH, "") and taken[1] == (BOTH[1:], own.name if own else "")
    assert "CPUExecutionProvider" in model.session.description
    assert model.forward(np.arange(6).reshape(2, 3), max_loops=2).logits.shape[:2] == (2, 3)
    with pytest.raises(BackendMissing, match="CUDA was asked for, but ONNX Runtime fell back to CPUExecutionProvider"):
        load(bundle, provider="cuda")


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(not (session.NATIVE / CUDA_LIBRARY).exists(), reason=f"{CUDA_LIBRARY} is not built: make native")
def test_a_session_takes_the_library(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered for a provider that is not here, it leaves every node to its body; damaged kernels are refused."""
    bundle = tmp_path / "b"
    shutil.copytree(bundles["mla_decode"], bundle)
    (bundle / "kernels").mkdir()
    (bundle / "kernels" / "kernels.json").write_text("{}")
    monkeypatch.setenv(CUDA_OPS, "1")
    monkeypatch.setattr(ort, "wanted_providers", lambda runtime, wanted: BOTH)
    with pytest.raises(BackendMissing, match=r"kernels.json is not what this library launches from"):
        load(bundle)
