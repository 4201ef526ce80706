"""What a stage knows of a bundle before it opens anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mythos_export.verify.stages.stage import Bundle
from mythos_runtime.manifest import Manifest

PIECES = {"trunk.safetensors": 60, "experts-1-of-2.safetensors": 20, "experts-2-of-2.safetensors": 20}


@pytest.mark.parametrize(
    "files",
    [{"weights.safetensors": 100}, PIECES, {**PIECES, "weights.safetensors": 100}],
    ids=["whole", "in shards", "while shards are made of it"],
)
def test_weights_are_counted_once(files: dict[str, int], tmp_path: Any) -> None:
    others = {"golden.safetensors": 7, "model.onnx": 9}
    entries = {name: SimpleNamespace(bytes=size) for name, size in {**files, **others}.items()}
    assert Bundle(tmp_path, cast(Manifest, SimpleNamespace(files=entries, links=None))).weight_bytes == 100
