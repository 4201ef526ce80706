"""The manifest's reader: what it wrote it reads, and whatever else it meets is one readable error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mythos_runtime import BundleError
from mythos_runtime.manifest import Manifest, Source, Target, parse_manifest, read_manifest, write_manifest
from mythos_runtime.spec import CacheGroup, ExitRule, Knob, LoopSpec, StateTensor, TraceTensor, model_ports


def spec() -> LoopSpec:
    flat = ("B", "T")
    caches = CacheGroup("layers", 2, False, 4, "float32", 1), CacheGroup("loop", 3, True, 4, "float32")
    rule = ExitRule("act", "halts at a threshold", (Knob("halt_threshold", 0.99, None, 1e30, "a sum"),))
    return LoopSpec(
        family="toy",
        vocab_size=10,
        max_seq_len=64,
        max_output_tokens=16,
        trained_loops=4,
        caches=caches,
        state=(StateTensor("h", "float32", (*flat, 8), "encoded"),),
        exit=rule,
        trace=(TraceTensor("h", "float32", (*flat, 8), "value", until_halted=True),),
        graphs={"model": model_ports(10, caches, rule, None)},
    )


def manifest() -> Manifest:
    return Manifest(
        spec=spec(),
        config={"dim": 8},
        precision="fp32",
        targets=(Target("onnx", "verified", (), {}),),
        tool_versions={"torch": "2"},
        files={},
        tolerances={"logits_relative": 1e-5},
        source=Source("step.pt", "a" * 64, "state dict"),
        operators={"mythos::moe": "portable function body"},
        created="2026-01-01T00:00:00+00:00",
    )


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()


@given(data=st.data())
def test_any_mutation_loads_or_is_a_bundle_error(data: st.DataObject) -> None:
    document: Any = json.loads(json.dumps(manifest().to_json()))
    node, path = document, []
    while isinstance(node, (dict, list)) and node and (not path or data.draw(st.booleans())):
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        path.append((node, key))
        node = node[key]
    parent, key = path[-1]
    junk = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({})
    )
    parent[key] = data.draw(junk)
    try:
        parse_manifest(json.dumps(document).encode())
    except BundleError as error:
        assert "\n" not in str(error)


def test_a_bundle_of_version_1_says_what_to_do() -> None:
    document = manifest().to_json() | {"format_version": 1}
    with pytest.raises(BundleError, match="export the model again"):
        parse_manifest(json.dumps(document).encode())


def test_ports_that_are_not_those_of_the_sizes_are_refused() -> None:
    """A runtime allocates by the one and feeds the other."""
    document = manifest().to_json()
    document["spec"]["vocab_size"] = 11
    with pytest.raises(BundleError, match="does not hold together.*logits"):
        parse_manifest(json.dumps(document).encode())


@given(text=st.binary(max_size=60))
def test_any_bytes_are_a_bundle_error(text: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(text)


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../b", "C:\\x", ""])
def test_paths_that_leave_the_folder_are_refused(name: str) -> None:
    document = manifest().to_json()
    document["files"] = {name: {"sha256": "a" * 64, "bytes": 1}}
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(document).encode())
