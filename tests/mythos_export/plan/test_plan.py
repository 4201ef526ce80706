"""A plan is of the model that the family builds, of the bytes that a bundle has, and takes no torch and no second."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles, config_of
from golden_families import GoldenCase

from mythos_export.bench.model_cost import GraphCost
from mythos_export.bench.workloads import Workload
from mythos_export.cli import mythos
from mythos_export.errors import PlanError
from mythos_export.plan.devices import PRESETS, find_device
from mythos_export.plan.estimate import PRECISIONS, estimate, need
from mythos_export.plan.models import Model, of_config, read_model, variants
from mythos_export.plan.words import facts
from mythos_model import VARIANTS, MythosConfig, load_checkpoint
from mythos_runtime import read_manifest
from mythos_runtime.cli.terminal import out
from mythos_runtime.engine.memory import state_bytes
from mythos_runtime.engine.options import CHUNK, MAX_LAG

TIED = "nanbeige_norm_once_tied"
FAMILIES = ["gqa_prefill", "mla_prefill", "ouro_prefill", "huginn_prefill", "nanbeige_prefill", TIED]
FAMILIES += ["parcae_prefill", "parcae_linear_injection"]


@pytest.mark.parametrize("name", list(VARIANTS))
def test_variants_are_those_of_the_family(name: str) -> None:
    config, model = VARIANTS[name], read_model(name)
    assert MythosConfig.from_dict(variants()[name]) == config
    assert model.parameters == config.parameter_count()
    assert model.active_per_loop == config.active_parameters_per_loop()
    assert (model.width, model.loops, model.around) == (
        config.cache_dim,
        config.max_loop_iters,
        2 * config.prelude_layers,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_and_cache_lines_are_those_of_the_model(name: str) -> None:
    if name.split("_")[0] in ("gqa", "mla"):
        loaded = load_checkpoint(GOLDEN / name / "model.safetensors", **config_of(name))
    else:
        case = GoldenCase.load(name)
        loaded = load_checkpoint(case.folder, case.config, exit_rule=case.exit_rule)
    family, model = loaded.family, loaded.model()
    planned = of_config(name, loaded.config.to_dict(), family.name)
    assert planned.parameters == sum(math.prod(shape) for shape in family.shapes(loaded.config).values())
    caches = {group.name: (group.slots, group.width) for group in model.spec.caches}
    assert (planned.inside, planned.width) == caches["loop"]
    assert planned.around == (caches["layers"][0] if "layers" in caches else 0)
    around = model.spec.cache("layers")
    assert planned.behind == (0 if around is None else around.slots - around.before)
    assert (planned.loops, planned.longest) == (model.spec.trained_loops, model.spec.max_seq_len)
    assert 0 <= state_bytes(model.spec) - planned.state < 40  # beside its vectors: numbers, and the token
    group = loaded.model(torch.float32).with_int8_cache().spec.cache("loop")
    assert group is not None and planned.scales == len(group.rounded)
    line = need(replace(planned, int8_cache=True), "fp32").cache_loop / planned.inside
    assert line == group.page_width and group.page_dtype == "int8"
    with pytest.raises(PlanError, match="no int8 caches at fp16"):
        need(replace(planned, int8_cache=True), "fp16")


@pytest.mark.parametrize("case", ["mla_prefill", "gqa_prefill"])
def test_bytes_and_arithmetic_of_a_loop_are_those_of_the_graph(case: str, bundles: Bundles) -> None:
    cost = GraphCost(bundles[case] / "model.onnx").loop(Workload("decode", 1, 0, 1, 1))
    planned = need(read_model(str(bundles[case])), "fp32")
    few = 4 * 3 * 64  # what lowering computes once, of vectors
    assert planned.loop + planned.cache_loop == pytest.approx(cost.bytes, abs=4 * few)
    assert planned.loop_flops == pytest.approx(cost.flops, rel=0.05)


@pytest.mark.parametrize(
    ("precision", "name"), [("fp32", "gqa_decode"), ("int8", "gqa_decode, int8"), ("int4", "gqa_decode, int4")]
)
def test_a_bundle_has_the_bytes_that_were_planned(precision: str, name: str, bundles: Bundles) -> None:
    manifest = read_manifest(bundles[name])
    model = read_model(str(bundles[name]))
    assert model.precision == precision
    held = manifest.files["weights.safetensors"].bytes
    # Narrow matrices are padded to whole tiles and blocks; what is small is in the graphs.
    assert need(model, precision).weights == pytest.approx(held, rel=0.15 if precision == "fp32" else 0.6)


_ALONE = """
import sys
from mythos_export.plan.devices import find_device
from mythos_export.plan.estimate import estimate
from mythos_export.plan.models import read_model
model, device = read_model("1t"), find_device("8xh100")
print([estimate(model, precision, device, 10**6, 1, 64).devices for precision in ("fp16", "int4")])
assert not {"torch", "onnxruntime", "mythos_model"} & set(sys.modules)
"""


def test_it_imports_nothing_large() -> None:
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


def test_what_is_too_large_is_sharded_and_the_limit_is_the_slower_of_the_two() -> None:
    model, device = read_model("1t"), find_device("8xh200")
    plan = estimate(model, "fp16", device, 4096, 1, 2 * model.loops)
    taken = plan.need.weights + plan.cache + plan.states
    assert not plan.fits and plan.devices == math.ceil(taken / (0.9 * 141e9))
    assert plan.shard is not None and "512 experts" in plan.shard and "(8xh200 has 8)" in plan.shard
    assert list(plan.seconds) == sorted(plan.seconds) and len(plan.seconds) == 128
    small = estimate(read_model("1b"), "int4", find_device("h100"), 0, 1, 16)
    assert small.fits and small.bound == "reading"
    assert small.seconds[15] == pytest.approx(small.need.bytes(16) / 3350e9)
    assert small.states == 0 and estimate(read_model("1b"), "int4", find_device("h100"), 40, 2, 16).states == 80 * 24576
    few, many = (estimate(read_model("1b"), "int4", find_device("h100"), tokens, 3, 16) for tokens in (1000, 2000))
    assert few.states == many.states == 3 * (MAX_LAG + CHUNK) * 24576 and many.cache == 2 * few.cache
    ouro = replace(read_model("1b"), behind=0)
    assert estimate(ouro, "int4", find_device("h100"), 1000, 3, 16).states == 3 * 1000 * 24576
    assert find_device("2xh100").count == 2 and PRESETS["8xh100"].count == 8


def test_how_many_positions_have_a_state_is_said_of_each_kind_of_model(bundles: Bundles, tmp_path: Path) -> None:
    def said(model: Model) -> str:
        estimates = [estimate(model, "fp32", find_device("h100"), 1000, 3, 16)]
        return dict(facts(model, find_device("h100"), estimates))["states"]

    behind = read_model(str(bundles["gqa_decode"]))
    assert "at most 128 of a sequence" in said(behind) and "--max-lag" in said(behind)
    assert "every token of a prompt may" in said(replace(behind, behind=0))
    folder = Path(shutil.copytree(bundles["gqa_decode"], tmp_path / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["spec"]["graphs"] = {"model": manifest["spec"]["graphs"]["model"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    without = read_model(str(folder))
    assert without.state == 0 and said(without).startswith("none: the bundle has no row graphs")


def test_the_command_says_it_in_a_table_a_page_and_json(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    done = CliRunner().invoke(mythos, ["plan", "10b", "--device", "h100", "--html", str(page), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout.splitlines()[-1])
    assert [each["need"]["precision"] for each in document["estimates"]] == list(PRECISIONS)
    text = page.read_text()
    assert text.count("<svg") == 1 and "<script" not in text and "10b on h100" in text and "In shards" not in text
    sharded = ["plan", "10b", "--device", "h100", "--html", str(page), "--expert-shards", "4"]
    assert CliRunner().invoke(mythos, sharded).exit_code == 0
    assert "In shards of experts" in page.read_text() and "a shard" in page.read_text()
    for arguments, words in (
        (["plan", "nothing"], "there is no model 'nothing': give a variant (1b, 3b"),
        (["plan", "1b", "--device", "abacus"], "there is no device 'abacus'; there are l4"),
        (["plan", str(tmp_path / "config.json")], "there is no model"),
    ):
        refused = CliRunner().invoke(mythos, arguments)
        assert refused.exit_code == 2 and words in " ".join(refused.stderr.split()), refused.stderr
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    refused = CliRunner().invoke(mythos, ["plan", str(tmp_path)])
    assert refused.exit_code == 2 and "known are huginn, nanbeige, openmythos, ouro" in " ".join(refused.stderr.split())
    listed = CliRunner().invoke(mythos, ["plan", "--list-devices"])
    assert listed.exit_code == 0 and "8xh200: 8 x 141 GB, 4.80 TB/s, 989 TFLOP/s" in listed.stdout


@pytest.mark.parametrize("columns", [30, 50, 74, 80, 86, 120])
def test_tables_are_whole_on_any_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut, and a row stays one line; where there is room for it, a table is one."""
    arguments = ["plan", "1t", "--device", "8xh100", "--context", "1000000", "--expert-shards", "8"]
    monkeypatch.setattr(out, "_width", columns)  # COLUMNS counts only where the console is made after it was set
    done = CliRunner().invoke(mythos, arguments)
    assert done.exit_code == 0 and "…" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, lines)) <= columns
    assert all(line[1:].split("│")[0].strip() in ("fp32", "int8", "int4") for line in lines if line[0] == "│")
    tops, heads = (sum(line[0] == mark for line in lines) for mark in "┏┃")
    assert columns < 120 or (tops, heads) == (3, 3)
    assert columns != 80 or (tops, heads) == (5, 6)


def test_this_machine_is_measured() -> None:
    device = find_device("this")
    assert device.measured and device.memory > 1e9 and 1e8 < device.read < 1e13 and 1e8 < device.multiply < 1e15
