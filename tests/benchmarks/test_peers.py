"""The peers compute the model that the bundle computes, and the documents' tables are made of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles

from benchmarks import models, tables
from benchmarks.peers.__main__ import main
from benchmarks.peers.plain import angles_in_float32, dense, exported, gathered, per_expert, plain_model
from benchmarks.peers.plain_onnx import OPSET
from benchmarks.peers.reference import Reference
from mythos_export.bench.backends.backend import Setting
from mythos_export.bench.backends.onnxruntime import FunctionBodies
from mythos_export.bench.workloads import Workload, _ids, load_case, write_inputs
from mythos_export.verify.past import Past
from mythos_model import load_checkpoint, ops
from mythos_model.blocks import Rotary
from mythos_runtime import load


@pytest.mark.parametrize("form", [gathered, per_expert, dense])
def test_every_form_of_the_experts_is_the_plain_operator(form: Any) -> None:
    torch.manual_seed(0)
    n, D, F, E, K = 5, 8, 6, 4, 2  # one expert of four may well be empty
    x, weight = torch.randn(n, D), torch.rand(n, K)
    index = torch.stack([torch.randperm(E - 1)[:K] for _ in range(n)])
    gate_up, down = torch.randn(E, 2 * F, D), torch.randn(E, D, F)
    none = torch.zeros(0, D), torch.zeros(D, 0)
    torch.testing.assert_close(form(x, index, weight, gate_up, down), ops.moe(x, index, weight, gate_up, down, *none))


@pytest.mark.filterwarnings("ignore")
def test_compilers_are_given_no_operator_of_ours() -> None:
    """torch.onnx has none of them, and then neither ONNX Runtime nor OpenVINO would take part."""
    model = plain_model(models.HOPS, gathered)
    given = Past.empty(model.spec, 1, 8, 2).inputs(np.array([[5]]), [1], 2)
    program = exported(model, tuple(torch.as_tensor(given[port.name]) for port in model.spec.ports.inputs))
    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    assert len(graphs) == 3  # the loop's condition and its body
    assert not [node for graph in graphs for node in graph.graph.nodes if "mythos" in str(node.target)]
    assert torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False) is not None


def test_angles_in_float32_are_those_of_the_model_where_a_context_is_short() -> None:
    """What OpenVINO is given instead of products of 64-bit integers, which it computes in 32."""
    positions, own = torch.tensor([[0, 1, 7, 999]]), Rotary.at
    expected = Rotary.at(positions, 8, 1e4, torch.float32)
    with angles_in_float32():
        found = Rotary.at(positions, 8, 1e4, torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not torch.equal(found.cos, expected.cos) and Rotary.at == own


@pytest.mark.slow
@pytest.mark.parametrize(
    "workload",
    [Workload("decode", 1, 30, 2, 3), Workload("prefill", 20, 0, 2, 4), Workload("prefill", 20, 0, 1, None)],
    ids=lambda workload: workload.name,
)
def test_the_reference_starts_from_the_same_cache_and_gives_the_same_logits(
    bundles: Bundles, tmp_path: Path, workload: Workload
) -> None:
    folder = bundles["hops"]
    model = load(folder, verify="sizes", op_library=None)
    inputs = tmp_path / "inputs.npz"
    write_inputs(model, [workload], inputs, GOLDEN / "hops" / "io.safetensors")
    case = load_case(inputs, workload, model.spec.trained_loops)
    checkpoint = next((GOLDEN / "hops").glob("*.pt"))
    setting = Setting(folder, checkpoint, 1, tmp_path)
    answers = []
    for backend in (FunctionBodies(), Reference()):
        assert backend.missing(setting) is None
        backend.load(setting)
        call = backend.prepare(case)
        answers += [call().logits, call().logits]  # the second call does the same work as the first
    for answer in answers[1:]:
        assert np.abs(answer - answers[0]).max() <= 2e-5 * np.abs(answers[0]).max()


def report(folder: Path, quiet: bool) -> None:
    row = {
        "workload": "decode 1, batch 1, 2 loops",
        "backend": "one",
        "median": 0.00123,
        "interval": {"low": 0.0012, "high": 0.0013, "coverage": 0.97},
        "fraction_of_limit": 0.5,
    }
    document = {
        "format": "mythos-latency",
        "version": 1,
        "command": "python -m benchmarks.peers",
        "machine": {"cpu": "a processor", "threads": 1, "at": "2026-01-02T03:04:05+00:00"},
        "method": {"rounds": 6},
        "noise": {"quiet": quiet, "reasons": ["others were busy"]},
        "contestants": [
            {"name": "one", "state": "measured", "reason": None},
            {"name": "module:Two", "state": "missing", "reason": "not installed"},
            {"name": "three", "state": "measured", "reason": None},
        ],
        "rows": [row],
    }
    folder.mkdir(parents=True)
    (folder / "latency.json").write_text(json.dumps(document))


def test_the_page_shows_winners_losers_and_absentees(tmp_path: Path) -> None:
    report(tmp_path / "peers" / "hops", quiet=True)
    report(tmp_path / "peers" / "wide", quiet=False)
    text = tables.tables(tmp_path)
    assert "| one | 1.23 ms (1.20 ms to 1.30 ms), 50% of the limit |" in text
    assert "| three | failed |" in text
    assert "Not measured: Two (not installed)." in text
    broken = {"name": "x:One", "state": "failed", "reason": "broke"}
    lacking: dict[str, dict[str, Any]] = {"hops": {"contestants": [broken]}, "wide": {"contestants": []}}
    assert tables._absent(lacking) == "Not measured: One for the demo model (broke)."
    assert text.count("The machine was not quiet: others were busy.") == 1
    readme = "before\n<!-- latency: begin -->\nold\n<!-- latency: end -->\nafter\n"
    made = tables.replaced(readme, "latency", text)
    assert "old" not in made and made.startswith("before\n") and made.endswith("\nafter\n")
    assert tables.replaced(made, "latency", text) == made


@pytest.mark.parametrize("arguments", [["--models", "foo"], ["--only", "typo"]])
def test_unknown_names_are_refused_with_the_known_ones(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert arguments[1] in result.output and ("hops, wide" in result.output or "torch_compile" in result.output)


def test_the_demo_model_is_the_one_that_ships() -> None:
    ids = models.ids_of("hops")
    assert ids is not None and _ids(ids, 602, 2, 40).shape == (2, 40)
    assert load_checkpoint(models.checkpoint("hops", Path())).config.max_loop_iters == 10


@pytest.mark.parametrize("page", tables.PAGES)
def test_the_tables_are_those_of_the_reports(page: str) -> None:
    now, wanted = tables.current(page)
    assert now == wanted, f"{page} is not current: python -m benchmarks.tables"
