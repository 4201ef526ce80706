"""FLOPs and bytes counted in the graph, against PyTorch's own counter and against the weights of the model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from golden_bundles import GOLDEN, Bundles, config_of
from torch.utils.flop_counter import FlopCounterMode

from mythos_export.bench.limits import SIZES_MB, best_of, reading_rate
from mythos_export.bench.model_cost import GraphCost
from mythos_export.bench.workloads import Workload
from mythos_model import load_checkpoint

CASES = ("mla_prefill", "gqa_prefill")


@pytest.mark.parametrize("case", CASES)
def test_flops_of_a_token_are_those_that_pytorch_counts(case: str, bundles: Bundles) -> None:
    cost = GraphCost(bundles[case] / "model.onnx")
    model = load_checkpoint(GOLDEN / case / "model.safetensors", **config_of(case)).model()
    vectors = {torch.ops.aten.mv: lambda matrix, vector, **_: 2 * matrix[0] * matrix[1]}  # PyTorch leaves them out
    for batch, held, loops in ((1, 0, 1), (1, 17, 1), (3, 17, 3)):
        past = {
            name: lines.new_zeros(*lines.shape[:2], held, lines.shape[3])
            for name, lines in model.empty_past(batch, loops).items()
        }
        with FlopCounterMode(display=False, custom_mapping=vectors) as counter, torch.no_grad():
            ids = torch.ones(batch, 1, dtype=torch.int64)
            model(ids, None, torch.full((batch,), held), loops, math.inf, False, past)
        found = cost.call(Workload("decode", 1, held, batch, loops), loops)
        assert found.flops == counter.get_total_flops()


@pytest.mark.parametrize("case", CASES)
def test_the_weights_of_the_graph_are_those_of_the_model(case: str, bundles: Bundles) -> None:
    cost = GraphCost(bundles[case] / "model.onnx")
    config = load_checkpoint(GOLDEN / case / "model.safetensors", **config_of(case)).config
    few = 2 * config.dim  # what lowering folds, makes, or moves out of the loop
    tied = config.vocab_size * config.dim  # is there twice, the head's side turned
    assert cost.weights == pytest.approx(config.parameter_count() + tied, abs=few)
    token = Workload("decode", 1, 0, 1, 1)
    loop = cost.loop(token)
    assert loop.weights == pytest.approx(config.active_parameters_per_loop(), abs=few)
    assert loop.bytes == 4 * (loop.weights + config.cache_dim)  # the token's own entry


@pytest.mark.parametrize("case", CASES)
def test_weights_that_are_linked_cost_what_they_cost_in_the_bundle(case: str, bundles: Bundles, tmp_path: Path) -> None:
    model = onnx.load(bundles[case] / "model.onnx", load_external_data=False)
    inputs = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and w.dims]
    for weight in inputs:
        model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
        model.graph.initializer.remove(weight)
    onnx.save(model, tmp_path / "model.onnx")
    held, linked = GraphCost(bundles[case] / "model.onnx"), GraphCost(tmp_path / "model.onnx")
    for workload in (Workload("decode", 1, 17, 2, 3), Workload("prefill", 5, 0, 1, 3)):
        assert linked.call(workload, 3) == held.call(workload, 3)
    assert linked.weights == held.weights > 0


def test_a_batch_meets_more_experts_but_no_more_than_there_are(bundles: Bundles) -> None:
    cost, config = GraphCost(bundles["mla_prefill"] / "model.onnx"), config_of("mla_prefill")["config"]
    one, many = (cost.loop(Workload("prefill", n, 0, 1, 1)) for n in (1, 10_000))
    entry = 4 * (config["kv_lora_rank"] + config["qk_rope_head_dim"])  # type: ignore[operator]
    expert = 4 * 3 * config["dim"] * config["expert_dim"]  # type: ignore[operator]
    assert many.bytes - 10_000 * entry - (one.bytes - entry) == pytest.approx(expert * 6, rel=1e-6)  # 8, 2 chosen


GRAPH = """<ir_version: 10, opset_import: ["": 21, "mythos": 1]>
other (int64[B, T] ids, int64 n, bool go) => (float[B, T, 40] y)
  <float[50, 8] table, float[8, 20] inside, float[20, 8] again, float[8, 40] head, float[8] norm, int64[1] axis,
   int8[3, 32, 16] rounded, float16[3, 1, 16] rounded_scale, uint8[3, 32, 8] packed>
{
  h0 = Gather(table, ids)
  h = Loop<body = step (int64 i, bool cond, float[B, T, 8] x) => (bool again_too, float[B, T, 8] out) {
    again_too = Identity(cond)
    normed = RMSNormalization(x, norm)
    wide = MatMul(normed, inside)
    first = MatMul(wide, again)
    out = mythos.linear<rows = 8> (first, rounded, rounded_scale)
  }>(n, go, h0)
  odd = mythos.new_operator(h, packed, axis)
  y = MatMul(odd, head)
}"""


def test_any_graph_is_counted_by_its_shapes(tmp_path: Path) -> None:
    """Unknown operators read their weights; a product without shapes multiplies all that its weights hold."""
    model = onnx.parser.parse_model(GRAPH)
    for declared in model.graph.value_info:  # the text form declares the weights there
        tensor = declared.type.tensor_type
        dims, kind = [dim.dim_value for dim in tensor.shape.dim], tensor.elem_type
        zeros = np.zeros(dims, onnx.helper.tensor_dtype_to_np_dtype(kind))
        model.graph.initializer.append(onnx.numpy_helper.from_array(zeros, declared.name))
    del model.graph.value_info[:]
    for name, dims in (("normed", ("B", "T", 8)), ("wide", (None, None, 20)), ("first", ("B", "T", 8))):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims))
    onnx.save(model, tmp_path / "model.onnx")
    cost = GraphCost(tmp_path / "model.onnx")
    workload = Workload("prefill", 5, 0, 2, 3)
    loop, fixed = cost.loop(workload), cost.fixed(workload)
    assert loop.flops == 2 * 10 * (8 * 20 + 20 * 8 + 8 * 8)
    assert loop.bytes == 4 * (8 + 8 * 20 + 20 * 8) + 3 * 32 * 16 + 2 * 3 * 16
    assert fixed.flops == 2 * 10 * 8 * 40
    assert fixed.bytes == 4 * (10 * 8 + 8 * 40) + 3 * 32 * 8
    assert fixed.weights == 10 * 8 + 8 * 40 + 2 * 3 * 32 * 8
    whole = cost.call(workload, 3)
    assert whole.flops == fixed.flops + 3 * loop.flops and whole.working_set == fixed.bytes + loop.bytes
    assert cost.weights == 50 * 8 + 8 + 2 * 8 * 20 + 3 * 32 * 16 + 2 * 3 * 32 * 8 + 8 * 40


def test_the_reading_rate_is_that_of_the_working_set() -> None:
    rounds = [
        {
            "read": {str(mb): {"a": 1e9 / mb, "b": 2e9 / mb} for mb in SIZES_MB},
            "product": {"a": 5e9, "b": 4e9},
        }
    ] * 2
    limits = best_of(rounds)
    assert limits["product"]["library"] == "a" and limits["read"][0]["library"] == "b"
    assert reading_rate(limits, 4e6) == pytest.approx(0.5e9)
    assert reading_rate(limits, 1) == pytest.approx(2e9) and reading_rate(limits, 1e12) == pytest.approx(2e9 / 160)
    assert 0.125e9 < reading_rate(limits, np.sqrt(4e6 * 16e6)) < 0.5e9
