"""The manifest's reader: what it wrote it reads, and whatever else it meets is one readable error."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_spec import spec

from mythos_runtime import BundleError
from mythos_runtime.linked import LinkedFile, LinkedTensor, Links, Stretch
from mythos_runtime.manifest import Manifest, Source, Target, parse_manifest, read_manifest, write_manifest
from mythos_runtime.row_ports import row_ports


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
        links=Links(
            (LinkedFile("../checkpoint/model.safetensors", "b" * 64, 4096),),
            {"w": LinkedTensor("float32", (2, 8), (Stretch(0, 96, 32), Stretch(0, 1024, 32)))},
        ),
        created="2026-01-01T00:00:00+00:00",
    )


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()


def test_mixed_formats_are_read_back(tmp_path: Path) -> None:
    mixed = replace(manifest(), precision="mixed", formats={"embed": "int8", "coda.ffn": "int4"})
    write_manifest(tmp_path, mixed)
    assert read_manifest(tmp_path) == mixed


def test_rounded_caches_are_read_back_and_others_do_not_mention_it(tmp_path: Path) -> None:
    plain = spec()
    caches = tuple(replace(group, rounded=(3, 1)) for group in plain.caches)
    rows = row_ports(plain.vocab_size, caches, plain.state, plain.exit)
    rounded = replace(manifest(), spec=replace(plain, caches=caches, graphs=plain.graphs | rows))
    write_manifest(tmp_path, rounded)
    assert read_manifest(tmp_path) == rounded and rounded.spec.int8_cache
    assert str(rows["step"].of("cache", "loop")) == "cache_0 int8 [G, 32, 8]"
    assert all("rounded" not in group for group in plain.to_json()["caches"])


@pytest.mark.parametrize("value", [[], [0], [True], [4.0], 4, "int8"])
def test_parts_that_are_no_sizes_are_refused(value: Any) -> None:
    document = manifest().to_json()
    document["spec"]["caches"][0]["rounded"] = value
    with pytest.raises(BundleError, match=r"spec.caches\[0\].rounded should be a list"):
        parse_manifest(json.dumps(document).encode())


MIXED: dict[str, tuple[dict[str, Any], str]] = {
    "none said": ({"precision": "mixed"}, "formats"),
    "no format": ({"precision": "mixed", "formats": {"embed": "int3"}}, "formats.embed"),
    "no object": ({"precision": "mixed", "formats": ["int8"]}, "formats"),
    "not mixed": ({"formats": {"embed": "int8"}}, "formats"),
}


@pytest.mark.parametrize("case", MIXED)
def test_formats_that_say_nothing_are_refused(case: str) -> None:
    change, field = MIXED[case]
    with pytest.raises(BundleError, match=re.escape(field)):
        parse_manifest(json.dumps(manifest().to_json() | change).encode())


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


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        ("files.0.path", "a\nb", "printable"),
        ("files.0.sha256", "B" * 64, "hexadecimal"),
        ("tensors.w.dtype", "int64", "one of float32, float16"),
        ("tensors.w.shape", [2, 9], "stretches of 72 bytes together"),
        ("tensors.w.shape", [True, 16], "positive integers"),
        ("tensors.w.stretches.0.file", 1, "an integer from 0 to 0"),
        ("tensors.w.stretches.1.start", 4096, "ends within its file"),
        ("tensors.w.stretches.0.colour", 1, "unknown"),
    ],
)
def test_links_that_do_not_hold_together_are_refused(at: str, value: object, words: str) -> None:
    document = manifest().to_json()
    *way, last = [int(step) if step.isdigit() else step for step in at.split(".")]
    place: Any = document["links"]
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(BundleError, match=words):
        parse_manifest(json.dumps(document).encode())


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


CONTRADICTIONS: dict[str, tuple[str, Any]] = {
    "two caches are called layers": ("caches.1.name", "layers"),
    "two states are called h": ("state.1.name", "h"),
    "a state is called token, as what is kept beside the states": ("state.1.name", "token"),
    "two tensors of the trace are called h": ("trace.3.name", "h"),
    "there are 2 caches inside the loop and 0 around it": ("caches.0.per_loop", True),
    "there are 0 caches inside the loop and 2 around it": ("caches.1.per_loop", False),
    "the cache layers fills 3 of its 2 slots": ("caches.0.before", 3),
    "the cache loop fills 1 of its 3 slots": ("caches.1.before", 1),
    "the cache layers rounds parts of 3 values in all, where a line is 4 values of float32": (
        "caches.0.rounded",
        [1, 2],
    ),
    "enter: the inputs lack cache_0 int8 [G, 32, 8]": ("caches.0.rounded", [1, 3]),
    "the state out is not float32 of the size of h": ("state.1.dims", ["B", "T", 7]),
    "the state h is not one of": ("state.0.dims", ["B", "T", "N"]),
    "the state depth is not one of": ("state.3.dims", ["B"]),
    "the state out begins with noise that none is": ("state.1.start", "initial"),
    "the loop does not carry halted bool and depth int32": ("state.3.name", "deep"),
    "the knob halt_threshold is outside": ("exit.knobs.0.least", 1.5),
    "the tensor weights of the trace is chosen of h, which is value": ("trace.1.of", "h"),
    "the tensor weights of the trace is chosen of x, which is nothing": ("trace.1.of", "x"),
    "the tensor halted of the trace is halted of experts, which is choice": ("trace.4.of", "experts"),
    "the tensor h of the trace is value of sum": ("trace.2.of", "sum"),
    "the tensor sum of the trace is not one of": ("trace.3.dims", ["T", "B"]),
    "the cache loop has 2000000000 slots": ("caches.1.slots", 2_000_000_000),
    "enter: the inputs lack cache_0": ("graphs.enter.inputs.4.name", "cache_9"),
    "step: the outputs lack out_next": ("graphs.step.outputs.1.dims", ["R", 9]),
    "leave: the inputs lack answer": ("graphs.leave.inputs.0.group", "h"),
}
"""What one change makes of a spec that holds together: the beginning of what is said, where, and the new value."""


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_a_spec_that_does_not_hold_together_is_refused(words: str) -> None:
    where, value = CONTRADICTIONS[words]
    document = manifest().to_json()
    node = document["spec"]
    *path, last = [int(key) if key.isdigit() else key for key in where.split(".")]
    for key in path:
        node = node[key]
    node[last] = value
    if last == "slots":  # whose ports would be others, too: what stands there is looked at before they are made
        for side, name in (("inputs", "past_loop"), ("outputs", "new_loop")):
            port = next(port for port in document["spec"]["graphs"]["model"][side] if port["name"] == name)
            port["dims"][1] = value
    with pytest.raises(BundleError, match=f"does not hold together: {re.escape(words)}"):
        parse_manifest(json.dumps(document).encode())


def test_row_graphs_come_all_together_or_not_at_all() -> None:
    document = manifest().to_json()
    graphs = document["spec"]["graphs"]
    del graphs["step"]
    with pytest.raises(BundleError, match="the graphs are model, enter, leave, expected model, enter, step, leave"):
        parse_manifest(json.dumps(document).encode())
    del graphs["enter"], graphs["leave"]
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
