"""A bundle that speaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_bundles import Bundles
from text_bundles import speaking_copy


@pytest.fixture(scope="session")
def speaking(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaking_copy(bundles["hops"], tmp_path_factory.mktemp("speaking") / "bundle")
