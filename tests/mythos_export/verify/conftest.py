"""A bundle and its golden cases, and models for plants, for all tests of the verification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden_bundles import Bundles
from plants import model_of

from mythos_export.verify import run
from mythos_export.verify.golden import GOLDEN as GOLDEN_FILE
from mythos_export.verify.golden import Golden, load_golden, make_golden
from mythos_export.verify.results import StageResult
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_model import LoopedModel
from mythos_runtime import read_manifest


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Path:
    return bundles["training_checkpoint"]


@pytest.fixture(scope="module")
def golden(bundle: Path) -> Golden:
    return load_golden(bundle / GOLDEN_FILE, read_manifest(bundle).spec)


@pytest.fixture
def only_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other stages, and the operators by themselves, have tests of their own."""
    monkeypatch.setattr(run, "STAGES", (FunctionBodies,))
    left_out = StageResult("kernels", "", "", reason="left out of this test")
    monkeypatch.setattr(run, "kernels_stage", lambda progress: left_out)


@pytest.fixture(scope="module", params=["gqa_decode", "mla_decode"])
def made(request: pytest.FixtureRequest) -> tuple[LoopedModel, Golden]:
    """A model for plants, and its golden cases."""
    model = model_of(request.param)
    return model, make_golden(model, "fp32")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
