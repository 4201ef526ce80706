"""The C++ reader of manifests held against the Python one: same manifests taken, same texts of errors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from cpp_programs import PARSE, ROOT, cpp, needs_cpp
from golden_bundles import Bundles

from mythos_runtime import BundleError
from mythos_runtime.manifest import parse_manifest

pytestmark = needs_cpp

# What a reader says of a document that no manifest can be: which of these comes first is up to its JSON library.
NO_DOCUMENT = (
    "is not valid JSON",
    "which is not JSON",
    "too large for a number",
    "nests deeper than",
    "repeats the field",
)


def test_any_manifest_is_read_or_refused_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    source = (bundles["mla_decode"] / "manifest.json").read_bytes()
    words = [b"null", b"-1", b"1e999", b"NaN", b"9223372036854775808", b'""', b"{}", b"[]", b'"\\ud800"', b'"../x"']
    words += [b"0.5", b"\xff", b"\xc3", b"\\u", b",", b":", b'"', b"]", b"}", b"\n", b"\\", b'"a":1,', "é".encode()]
    words += [b"-0", b"00", b"+1", b"1.", b"1e5", b"9" * 400, b"true", b"\x00", b"\x0b", b"\xed\xa0\x80", b'"N"', b"//"]
    documents = [source, b"\xef\xbb\xbf" + source, b"", b"[]", b"[" * 40 + b"]" * 40, b'{"a":1,"a":2}', b"1.0"]
    documents += [
        b'"\\ud83d\\ude00"',
        b'"\\ude00"',
        source + b"\x00",
        source + b"{}",
        b"[" * 5000,
        b"[" + b"9" * 5000 + b"]",
        source.replace(b"{", b'{"shards": null, ', 1),  # as if it were not there
    ]
    assert parse_manifest(documents[-1]).shards is None
    generator = random.Random(1)
    for _ in range(1500):
        text = bytearray(source)
        for _ in range(generator.randint(1, 3)):
            at, length = generator.randrange(len(text)), generator.randrange(8)
            text[at : at + length] = generator.choice([b"", *words])
        documents.append(bytes(text))
    (tmp_path / "documents").write_bytes(b"".join(b"%d\n%s" % (len(text), text) for text in documents))
    lines = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    assert len(lines) == len(documents)
    for text, line in zip(documents, lines, strict=True):
        try:
            parse_manifest(text)
            expected = "ok"
        except BundleError as error:
            expected = str(error)
        if any(words in expected for words in NO_DOCUMENT):
            assert any(words in line for words in NO_DOCUMENT), (line, expected, text)
        else:
            assert line == expected, text


def test_the_spec_is_read_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    """Every value of the spec replaced in turn by others: the same manifests are refused, in the same words."""
    manifest = json.loads((bundles["mla_decode"] / "manifest.json").read_text())
    spec = manifest["spec"]
    spec["trace"] = spec["trace"][:2]
    drawn = next(state for state in spec["state"] if state["name"] == "h")
    drawn.update(start="noise", scale=1.0)
    port = {
        "name": "initial_state",
        "dtype": drawn["dtype"],
        "dims": drawn["dims"],
        "role": "initial_state",
        "group": None,
    }
    ports = spec["graphs"]["model"]["inputs"]
    ports.insert([each["name"] for each in ports].index("early_exit") + 1, port)
    spec["graphs"] = {"model": spec["graphs"]["model"]}
    documents = [json.dumps(manifest).encode()]
    for holder, key in places(spec):
        kept = holder[key]
        for other in (None, True, -1, 7, 1.5, "", "N", "noise", [], {}, [kept, kept]):
            holder[key] = other
            documents.append(json.dumps(manifest).encode())
        holder[key] = kept
    lines = in_the_same_words(documents, tmp_path)
    assert len(documents) > 1000 and lines[0] == "ok"


def test_formats_are_read_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    manifest = json.loads((bundles["mla_decode"] / "manifest.json").read_text())
    mixed = manifest | {"precision": "mixed"}
    formats = [{}, {"embed": "int8", "coda.ffn": "int4"}, {"embed": "int3"}, ["int8"], None, {"embed": 1}]
    documents = [manifest | {"formats": {"embed": "int8"}}, mixed, *(mixed | {"formats": each} for each in formats)]
    texts = [json.dumps(each).encode() for each in documents]
    assert in_the_same_words(texts, tmp_path)[3] == "ok"


def in_the_same_words(documents: list[bytes], tmp_path: Path) -> list[str]:
    """What C++ says of each document: "ok", or the words that Python refuses it with."""
    (tmp_path / "documents").write_bytes(b"".join(b"%d\n%s" % (len(text), text) for text in documents))
    lines = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    for text, line in zip(documents, lines, strict=True):
        try:
            parse_manifest(text)
            assert line == "ok", text
        except BundleError as error:
            assert line == str(error), text
    return lines


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object, name) and (list, index) in a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def test_links_are_taken_and_refused_in_python_s_words(tmp_path: Path) -> None:
    """From the seed of the fuzzer, which has to be taken: nothing behind a mistake in it would be fuzzed."""
    seed = json.loads((ROOT / "runtimes/cpp/tests/manifest_seed.json").read_text())
    file, tensor = ["links", "files", 0], ["links", "tensors", "embed.weight"]
    changes: list[tuple[list[Any], Any]] = [
        (["links"], None),
        ([*file, "path"], "a\nb"),
        ([*file, "path"], "a" * 5000),
        ([*file, "sha256"], "A" * 64),
        (["links", "files"], []),
        (["links", "colour"], 1),
        ([*tensor, "dtype"], "int8"),
        ([*tensor, "shape"], []),
        ([*tensor, "shape"], [True, 64]),
        ([*tensor, "shape"], [300, 65]),
        ([*tensor, "stretches"], []),
        ([*tensor, "stretches", 0, "start"], 10**9),
        ([*tensor, "stretches", 0, "start"], 2**63 - 1),
        ([*tensor, "stretches", 0, "file"], 1),
    ]
    documents = [json.dumps(seed)]
    for (*way, last), value in changes:
        place = changed = json.loads(documents[0])
        for step in way:
            place = place[step]
        place[last] = value
        documents.append(json.dumps(changed))
    del (lacking := json.loads(documents[0]))["links"]["tensors"]["embed.weight"]["shape"]
    documents.append(json.dumps(lacking))
    (tmp_path / "documents").write_text("".join(f"{len(text)}\n{text}" for text in documents))
    said = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    expected = []
    for text in documents:
        try:
            parse_manifest(text.encode())
            expected.append("ok")
        except BundleError as error:
            expected.append(str(error))
    assert said == expected and expected[:2] == ["ok", "ok"] and "ok" not in expected[2:]
