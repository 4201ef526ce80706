"""One small bundle that speaks, and one server over it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from golden_bundles import Bundles
from served_bundles import Serving, serving
from text_bundles import change_tokenizer, speaking_copy

from mythos_runtime.engine import AnyEngine
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.native import NativeEngine
from mythos_runtime.engine.request import Token
from mythos_runtime.op_library import find_op_library


@pytest.fixture(scope="session")
def small(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    folder = speaking_copy(bundles["hops"], tmp_path_factory.mktemp("served") / "bundle")
    change_tokenizer(folder, eos=[601], defaults={"temperature": 0.5})
    return folder


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a model answers a hundred tokens in 75 ms, before a test has looked at who is running."""

    def late(tick: Callable[[AnyEngine], list[Token]]) -> Callable[[AnyEngine], list[Token]]:
        def slow(engine: AnyEngine) -> list[Token]:
            time.sleep(0.01)
            return tick(engine)

        return slow

    for kind in (Engine, NativeEngine):
        monkeypatch.setattr(kind, "tick", late(kind.tick))


@pytest.fixture(scope="session")
def server(small: Path) -> Iterator[Serving]:
    with serving(small, most_running=8, most_queued=24) as running:
        yield running
