"""Models that generate, as Python's engine and the C++ runtime run them."""

from __future__ import annotations

import pytest
from engines import ENGINES
from golden_bundles import Bundles

from mythos_runtime import Model, load
from mythos_runtime.session import EngineChoice

CASES = ["mla_decode", "gqa_decode"]


@pytest.fixture(scope="module", params=ENGINES)
def kind(request: pytest.FixtureRequest) -> EngineChoice:
    kind: EngineChoice = request.param
    return kind


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, bundles: Bundles, kind: EngineChoice) -> Model:
    return load(bundles[request.param], engine=kind)


@pytest.fixture(scope="module", params=CASES)
def in_python(request: pytest.FixtureRequest, bundles: Bundles) -> Model:
    """Whose engine can be looked into."""
    return load(bundles[request.param], engine="python")
