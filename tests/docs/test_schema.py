"""docs/bundle.schema.json: what it takes is what the reader takes, as far as a schema can say it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from golden_bundles import Bundles
from sharded_bundles import split

from mythos_runtime.errors import BundleError
from mythos_runtime.manifest import FORMAT_VERSION, PRECISIONS, parse_manifest
from mythos_runtime.ports import DTYPES, INPUT_ROLES, OUTPUT_ROLES, SYMBOLS
from mythos_runtime.spec_reader import KINDS, STARTS

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "bundle.schema.json").read_text())


def test_it_lists_what_the_reader_knows() -> None:
    fields = SCHEMA["properties"]
    spec, graph = fields["spec"]["properties"], SCHEMA["$defs"]["graph"]["properties"]
    assert fields["format_version"]["const"] == FORMAT_VERSION and fields["precision"]["enum"] == list(PRECISIONS)
    for side, roles in (("inputs", INPUT_ROLES), ("outputs", OUTPUT_ROLES)):
        port = graph[side]["items"]["properties"]
        assert port["role"]["enum"] == list(roles) and port["dtype"]["enum"] == list(DTYPES)
    assert spec["trace"]["items"]["properties"]["kind"]["enum"] == list(KINDS)
    assert spec["state"]["items"]["properties"]["start"]["enum"] == list(STARTS)
    assert SCHEMA["$defs"]["dims"]["items"]["anyOf"][1]["enum"] == list(SYMBOLS)


def test_it_takes_a_bundle_in_shards(bundles: Bundles, tmp_path: Path) -> None:
    folder = split(bundles["gqa_prefill"], tmp_path / "bundle", 2)
    manifest = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(manifest, SCHEMA)
    for change in ({"counts": [0]}, {"colour": "red"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**manifest, "shards": manifest["shards"] | change}, SCHEMA)


@pytest.mark.parametrize("case", ["mla_prefill", "gqa_prefill"])
def test_it_takes_bundles(case: str, bundles: Bundles) -> None:
    jsonschema.validate(json.loads((bundles[case] / "manifest.json").read_text()), SCHEMA)


@pytest.mark.parametrize("path", ["created", "spec.caches.0.width", "spec.exit.meaning", "source.name", "files"])
def test_what_is_missing_is_refused_by_both(path: str, bundles: Bundles) -> None:
    manifest = json.loads((bundles["mla_prefill"] / "manifest.json").read_text())
    broken = copy.deepcopy(manifest)
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = broken
    for step in way:
        place = place[step]
    del place[last]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(broken).encode())
