"""What a plan says of shards: the bytes that a bundle in shards has, and a network that bounds a loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from golden_bundles import Bundles
from sharded_bundles import split

from mythos_export.cli import mythos
from mythos_export.errors import PlanError
from mythos_export.plan.devices import find_device
from mythos_export.plan.estimate import need
from mythos_export.plan.models import read_model
from mythos_export.plan.shards import NETWORKS, find_network, sharded
from mythos_runtime import read_manifest

DEVICE, FAST = find_device("h100"), find_network("400gbe")


def test_bytes_are_those_of_a_bundle(bundles: Bundles, tmp_path: Path) -> None:
    folder = split(bundles["hops"], tmp_path / "bundle", 2)
    files = read_manifest(folder, verify_hashes=False).files
    found = sharded(read_model(str(folder)), "fp32", DEVICE, FAST, 2, 1, 0)
    assert found.trunk == pytest.approx(files["trunk.safetensors"].bytes, rel=0.05)
    assert found.shard == pytest.approx(files["experts-1-of-2.safetensors"].bytes, rel=0.01)


@pytest.mark.parametrize("name", ["50b", "100b", "500b", "1t"])
@pytest.mark.parametrize("form", ["fp32", "int4"])
def test_trunk_and_shards_are_the_whole(name: str, form: str) -> None:
    model = read_model(name)
    found = sharded(model, form, DEVICE, FAST, 16, 1, 4096)
    assert found.trunk + 16 * found.shard == pytest.approx(need(model, form).weights)
    assert found.loop == pytest.approx(found.computing + found.experts + found.network)
    assert found.token > model.loops * found.loop


def test_what_binds() -> None:
    """A slow network with many rows does, and more shards do not help; of experts behind a fast one they do."""
    model = read_model("10b")
    slow = [sharded(model, "int4", DEVICE, NETWORKS["1gbe"], shards, 64, 0) for shards in (4, 8)]
    assert [each.bound for each in slow] == ["network", "network"] and slow[1].network >= slow[0].network
    sent, received = slow[0].traffic
    assert received == 4 * 4096 * model.chosen and 4096 * 4 <= sent <= 4 * 4096 * model.chosen
    assert slow[0].network == pytest.approx(200e-6 + 64 * (sent + received) / 125e6)
    fast = [sharded(model, "fp32", DEVICE, FAST, shards, 64, 0) for shards in (4, 8)]
    assert fast[0].bound == "experts" and fast[1].experts == pytest.approx(fast[0].experts / 2)


def test_command() -> None:
    arguments = ["plan", "1b", "--device", "h100", "--expert-shards", "4", "--network", "12.5:40", "--json"]
    result = CliRunner().invoke(mythos, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout.splitlines()[-1])["expert_shards"]
    assert [row["precision"] for row in rows] == ["fp32", "int8", "int4"]
    assert all(row["fits"] for row in rows)
    assert "Experts in 4 shards" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["1b", "--expert-shards", "65"], "1b has 64 experts: they cannot be in 65 shards"),
        (["1b", "--expert-shards", "2", "--network", "carrier pigeon"], "there is no network 'carrier pigeon'"),
        (["1b", "--network", "1gbe"], "--network is between the shards"),
    ],
)
def test_mistakes(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(mythos, ["plan", *arguments, "--device", "h100"])
    assert result.exit_code == 2 and not result.stdout and words in " ".join(result.stderr.split())


def test_a_model_without_experts() -> None:
    with pytest.raises(PlanError, match="has 0 experts"):
        sharded(
            read_model(str(Path(__file__).parents[2] / "golden_families" / "ouro_prefill")),
            "fp32",
            DEVICE,
            FAST,
            1,
            1,
            0,
        )
