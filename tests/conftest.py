"""Fixtures that several packages' tests share."""

from __future__ import annotations

import pytest
from golden_bundles import Bundles


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("bundles"))
