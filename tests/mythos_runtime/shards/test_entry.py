"""The manifest's field `shards`, and who is let in at a shard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_threads import Threads, shards_of

from mythos_runtime.errors import BackendFailed, BundleError
from mythos_runtime.manifest import MANIFEST, parse_manifest, read_manifest
from mythos_runtime.shards import wire
from mythos_runtime.shards.group import Shards
from mythos_runtime.shards.share import Share
from mythos_runtime.shards.worker import shard_of

HOPS = "hops"


def test_no_expert_is_stored_twice(sharded: Any, bundles: Any) -> None:
    """And none of what is gone is listed: the whole model, all its weights in one file."""
    manifest, whole = read_manifest(sharded(HOPS, 3)), read_manifest(bundles[HOPS])
    assert manifest.shards is not None and manifest.shards.counts == (2, 1, 1)
    stored = [name for name in manifest.files if name.endswith(".safetensors") and "golden" not in name]
    assert {"trunk.safetensors", *(f"experts-{n}-of-3.safetensors" for n in (1, 2, 3))} <= set(stored)
    assert not {"model.onnx", "step.onnx", "model.pt2", "weights.safetensors"} & set(manifest.files)
    assert all(name in manifest.files for target in manifest.targets for name in target.files)
    size = sum(manifest.files[name].bytes for name in stored)
    assert size <= whole.files["weights.safetensors"].bytes + whole.files["rows.safetensors"].bytes + 4096


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "counts should be 1 to 1024 numbers": lambda shards: shards.update(counts=[2, 0, 2]),
    "lists no experts-1-of-2.onnx": lambda shards: shards.update(counts=[2, 2]),
    "the graphs are": lambda shards: shards["graphs"].pop("rest"),
    "nothing reads encoded": lambda shards: _drop(shards, "encoded"),
    "nothing gives h_next": lambda shards: shards["graphs"]["rest"]["outputs"].pop(0),
    "which nothing gives": lambda shards: shards["graphs"]["route"]["outputs"].pop(3),
    "the ports of experts are others": lambda shards: shards["graphs"]["experts"]["outputs"][0].update(dims=["W", 7]),
    "is unknown to this version": lambda shards: shards.update(colour="red"),
}


def _drop(shards: dict[str, Any], name: str) -> None:
    for graph in shards["graphs"].values():
        graph["inputs"] = [port for port in graph["inputs"] if port["name"] != name]


@pytest.mark.parametrize("words", CHANGES)
def test_what_does_not_hold_together_is_refused(words: str, sharded: Any) -> None:
    document = json.loads((sharded(HOPS, 3) / MANIFEST).read_text())
    CHANGES[words](document["shards"])
    with pytest.raises(BundleError, match=words):
        parse_manifest(json.dumps(document).encode())


def test_a_machine_needs_its_shard_alone(sharded: Any, tmp_path: Path) -> None:
    bundle = sharded(HOPS, 3)
    for name in (MANIFEST, "experts-2-of-3.onnx", "experts-2-of-3.safetensors"):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    starter = Threads(tmp_path)
    connection, hello = wire.connect(starter.start(1), starter.key, 5.0)
    with connection:
        assert hello == shard_of(bundle, 1)[1]
    with pytest.raises(BundleError, match="experts-1-of-3.onnx is missing"):
        starter.start(0)
    with pytest.raises(BundleError, match="3 shards of experts, and no shard 4"):
        starter.start(3)
    graph = tmp_path / "experts-2-of-3.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    assert shard_of(tmp_path, 1)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        shard_of(tmp_path, 1, verify_hashes=True)


def test_the_trunk_s_machine_needs_none_of_them(sharded: Any, tmp_path: Path) -> None:
    """But what is there is checked."""
    folder = tmp_path / "bundle"
    shutil.copytree(sharded(HOPS, 3), folder)
    (folder / "experts-2-of-3.onnx").unlink()
    (folder / "experts-2-of-3.safetensors").unlink()
    assert read_manifest(folder).shards is not None
    (folder / "experts-3-of-3.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="experts-3-of-3.onnx has 0 bytes"):
        read_manifest(folder)


def test_who_does_not_know_the_key_is_not_let_in(sharded: Any) -> None:
    starter = Threads(sharded(HOPS, 3))
    address = starter.start(0)
    with pytest.raises(wire.LOST):
        wire.connect(address, b"another key", 5.0)
    connection, _ = wire.connect(address, starter.key, 5.0)  # and nobody has to wait for such
    connection.close()


def test_another_bundle_s_shards_are_not_taken(sharded: Any) -> None:
    """Whose numbers would fit."""
    starter = Threads(sharded(HOPS, 3))
    starter.start = lambda index: Threads.start(starter, 2 - index)  # type: ignore[method-assign]
    shards = Shards(read_manifest(sharded(HOPS, 3)), starter, 5.0)
    with pytest.raises(BackendFailed, match="has other experts than shard"):
        shards.start()
    assert starter.stopped


def test_a_call_that_fails_is_answered_and_the_next_is_computed(sharded: Any) -> None:
    shards, _ = shards_of(sharded(HOPS, 3))
    dim = shards.entry.dim
    x, out = np.ones((1, dim), np.float32), np.zeros((2, dim), np.float32)

    def share(expert: int) -> list[Share | None]:
        one = np.zeros(1, np.int64)
        return [Share(one + 1, one, one, one + expert), None, None]

    lost = shards.take(shards.ask(share(99), x), out)
    assert "expert_index" in str(lost[0]) and type(lost[0]) is BackendFailed
    assert not shards.take(shards.ask(share(1), x), out)
    assert out[1].any() and not out[0].any() and shards.ready == 3


def test_an_answer_that_came_too_late_is_nobody_s(sharded: Any) -> None:
    """Of a call that was given up between asking and taking."""
    shards, _ = shards_of(sharded(HOPS, 3))
    x, out = np.ones((1, shards.entry.dim), np.float32), np.zeros((1, shards.entry.dim), np.float32)
    one = np.zeros(1, np.int64)
    shards.ask([Share(one, one, one, one), None, None], x)
    assert not shards.take(shards.ask([Share(one, one, one, one + 1), None, None], x), out)
    again = np.zeros_like(out)
    assert not shards.take(shards.ask([Share(one, one, one, one + 1), None, None], x), again)
    assert np.array_equal(out, again)
