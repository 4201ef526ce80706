"""A whole bundle, and the same with its experts in shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from golden_bundles import Bundles
from sharded_bundles import split

from mythos_runtime.op_library import find_op_library

Split = Callable[[str, int], Path]


@pytest.fixture(scope="session")
def sharded(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """A golden bundle by its name, with its experts in so many shards."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    made: dict[tuple[str, int], Path] = {}

    def make(name: str, shards: int) -> Path:
        if (name, shards) not in made:
            folder = tmp_path_factory.mktemp("sharded") / "bundle"
            made[name, shards] = split(bundles[name], folder, shards)
        return made[name, shards]

    return make
