"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Two processes test on two cores. A second thread of each waits for the first, spinning, and takes its core: small
# products took 400 times as long. Before anything imports torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import ONNX Runtime before mythos_runtime does it

import hypothesis
import pytest
from family_bundles import FamilyBundles
from golden_bundles import Bundles

hypothesis.settings.register_profile("no_clock", deadline=None)  # others may compute, too
hypothesis.settings.load_profile("no_clock")


def pytest_configure(config: pytest.Config) -> None:
    """Triton's own functions are interpreted or not from its first import on, whichever test does that."""
    if "gpu" not in config.getoption("markexpr"):
        os.environ["TRITON_INTERPRET"] = "1"
        os.environ["MYTHOS_TRITON"] = "none"  # eager sessions on the CPU stay plain PyTorch all the same


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return Bundles(_shared(tmp_path_factory, "bundles"))


@pytest.fixture(scope="session")
def family_bundles(tmp_path_factory: pytest.TempPathFactory) -> FamilyBundles:
    return FamilyBundles(_shared(tmp_path_factory, "family bundles"))


def _shared(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all processes of a test run have in common."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the workers' folders are in one of the whole run
        base = base.parent
    folder = base / name
    folder.mkdir(exist_ok=True)
    return folder
