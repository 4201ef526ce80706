"""Operators as plug-ins in real TensorRT-RTX engines: shapes, formats and serialization. No engine is executed."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from golden_bundles import Bundles

from mythos_export.errors import TargetError, ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.kernels.fallback import PLUGIN
from mythos_export.kernels.gqa import plan as gqa_plan
from mythos_export.kernels.launch_plan import Plan
from mythos_export.kernels.mla import plan as mla_plan
from mythos_export.kernels.moe import plan as moe_plan
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.plugin.program import PROGRAM, Program
from mythos_export.kernels.plugin.tensorrt import NAMESPACE, PLUGINS, VARIANT, VERSION, register
from mythos_export.lower import Lowered
from mythos_export.targets import tensorrt_plugins
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, check_request
from mythos_export.targets.tensorrt_build import BuildRequest, Range, build, graph_inputs, profiles_for
from mythos_runtime import read_manifest

SM = 86
LACK = triton_build.missing() or (None if importlib.util.find_spec("tensorrt_rtx") else "tensorrt_rtx is not installed")
pytestmark = pytest.mark.skipif(LACK is not None, reason=str(LACK))

# Of the sizes of `looped_onnx`: dim 16, cache width 8. Decode plans only, which is half of the compiling.
PLANS: dict[str, Plan] = {
    "moe": moe_plan.plans(16, 16, 32, 4, 2, "fp16")[0],
    "mla_attention": mla_plan.plans(2, 4, 4, 8, 4, "fp16")[0],
    "gqa_attention": gqa_plan.plans(4, 1, 4, "fp16")[0],
}
ATTRIBUTES = {
    "moe": {},
    "mla_attention": {"scale": 0.25, "v_head_dim": 8},
    "gqa_attention": {"scale": 0.5, "kv_heads": 1},
}
BODIES = {
    "moe": """
    scores = MatMul(h, router)
    two = Constant<value = int64[1] {2}>()
    weight, index = TopK(scores, two)
    update = mythos.moe<variant = "D16-F16-Fs32-E4-K2">(
        h, index, weight, routed_gate_up, routed_down, shared_gate_up, shared_down)
    h2 = Add(h, update)
    """,
    "mla_attention": """
    in_heads = Constant<value = int64[4] {0, 0, 2, 8}>()
    q = Reshape(h, in_heads)
    q_nope, q_rope = Split<axis = 3, num_outputs = 2>(q)
    update = mythos.mla_attention<scale = 0.25, v_head_dim = 8, variant = "H2-nope4-P4-v8-R4">(
        q_nope, q_rope, past_loop, i, new, positions, past_lengths, kv_up)
    h2 = Add(h, update)
    """,
    "gqa_attention": """
    in_heads = Constant<value = int64[4] {0, 0, 4, 4}>()
    q = Reshape(h, in_heads)
    update = mythos.gqa_attention<scale = 0.5, kv_heads = 1, variant = "H4-G1-hd4">(
        q, past_loop, i, new, positions, past_lengths)
    h2 = Add(h, update)
    """,
}
WEIGHTS = {
    "router": (16, 4),
    "routed_gate_up": (4, 32, 16),
    "routed_down": (4, 16, 16),
    "shared_gate_up": (64, 16),
    "shared_down": (16, 32),
    "kv_up": (24, 4),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    specs = [spec for plan in PLANS.values() for spec in plan.launches]
    triton_build.build(specs, [SM], folder, plans=list(PLANS.values()))
    return folder


def add_weights(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node[-1].attribute[0].g.node for name in node.input}
    for name, shape in WEIGHTS.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float16), name))


@pytest.mark.parametrize("operator", list(PLUGINS))
def test_it_builds_inside_the_loop_and_the_engine_holds_its_kernels(
    operator: str, looped_onnx: Callable[..., Path], kernels: Path
) -> None:
    path = looped_onnx(body=BODIES[operator], edit=add_weights)
    profiles = profiles_for(
        graph_inputs(onnx.load(path, load_external_data=False)),
        batch=Range(1, 1, 2),
        tokens=Range(1, 4, 8),
        context=Range(0, 8, 16),
        loops=Range(1, 2, 4),
    )
    result = build(BuildRequest(path, path.parent / "engines", tuple(profiles), sms=(SM,), plugins=kernels))
    engine = result.engines[0].path.read_bytes()
    assert result.state == "built, not executed"
    for spec in PLANS[operator].launches:
        assert (kernels / f"{spec.name}.sm_{SM}.cubin").read_bytes() in engine, spec.name
    program = Program.from_build(kernels, operator, PLANS[operator].variant, ATTRIBUTES[operator])
    assert program.to_fields()[PROGRAM] in engine


@pytest.mark.parametrize("operator", list(PLUGINS))
def test_an_engine_s_fields_make_the_plug_in_again(operator: str, kernels: Path) -> None:
    trt: Any = importlib.import_module("tensorrt_rtx")
    register(trt)
    creator = trt.get_plugin_registry().get_creator(operator, VERSION, NAMESPACE)
    program = Program.from_build(kernels, operator, PLANS[operator].variant, ATTRIBUTES[operator])
    arrays = {name: np.frombuffer(value, np.uint8) for name, value in program.to_fields().items()}
    fields = [trt.PluginField(name, array, trt.PluginFieldType.CHAR) for name, array in arrays.items()]
    plugin = creator.create_plugin("node", trt.PluginFieldCollection(fields), trt.TensorRTPhase.RUNTIME)
    copy = plugin.clone()
    del plugin, arrays, fields
    again = {field.name: np.asarray(field.data).tobytes() for field in copy.get_fields_to_serialize()}
    assert Program.from_fields(again) == program
    newer = {**again, PROGRAM: again[PROGRAM].replace(b'"format_version": 2', b'"format_version": 3')}
    with pytest.raises(ValueError, match="export the model again"):
        Program.from_fields(newer)


def test_formats_and_types(kernels: Path) -> None:
    trt: Any = importlib.import_module("tensorrt_rtx")
    register(trt, kernels)
    creator = trt.get_plugin_registry().get_creator("moe", VERSION, NAMESPACE)
    variant = np.frombuffer(PLANS["moe"].variant.encode(), np.uint8)
    fields = [trt.PluginField(VARIANT, variant, trt.PluginFieldType.CHAR)]
    plugin = creator.create_plugin("node", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
    half, long = trt.DataType.HALF, trt.DataType.INT64
    good = [half, long, half, half, half, half, half, half]
    for position, kind in enumerate(good):
        for offered in (trt.DataType.FLOAT, half, trt.DataType.INT32, long):
            described = [trt.DynamicPluginTensorDesc() for _ in good]
            described[position].desc.type, described[position].desc.format = offered, trt.TensorFormat.LINEAR
            assert plugin.supports_format_combination(position, described, 7) == (offered == kind), (position, offered)
    described[0].desc.type, described[0].desc.format = half, trt.TensorFormat.CHW32
    assert not plugin.supports_format_combination(0, described, 7)


def test_the_records_are_the_registry_s() -> None:
    assert {name: operator.plugin for name, operator in OPERATORS.items() if operator.plugin} == PLUGINS
    for name, record in PLUGINS.items():
        operator = OPERATORS[name]
        assert [given.name for given in record.inputs] == [i for i in operator.inputs if i not in operator.scales]
        assert [attribute for attribute, _ in record.attributes] == [attribute for attribute, _ in operator.attributes]
        assert set(record.sizes) == set(PLANS[name].sizes)


def test_the_target_s_bundle_carries_what_its_engine_calls(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans_for = triton_build.plans_for  # decode plans only: half of the compiling
    monkeypatch.setattr(
        sys.modules["mythos_export.kernels.triton_build.build"],
        "plans_for",
        lambda *of: tuple(plan for plan in plans_for(*of) if plan.path == "decode"),
    )
    files = {"model.onnx", "weights.safetensors", "computed.safetensors"}
    for name in files:
        shutil.copy(bundles["mla_decode"] / name, tmp_path)
    spec = read_manifest(bundles["mla_decode"]).spec
    lowered = Lowered(tmp_path / "model.onnx", spec, ())
    options = TargetOptions("fp32", sm=str(SM), plugins=True)
    target = find_target("tensorrt")
    check_request(target, options)
    built = target.build(lowered, tmp_path, options, lambda text, part=None: None)
    assert (built.proof, built.operators) == (("tensorrt engine",), PLUGIN)
    assert [engine["plugins"] for engine in built.details["engines"]] == [True]
    assert not [name for name in built.files if name.endswith(".ep_context.onnx")]  # C++ has no plug-ins
    present = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert present == {*built.files, *files}
    engine = (tmp_path / f"engines/tensorrt_rtx-sm{SM}.engine").read_bytes()
    cubins = [name for name in built.files if name.endswith(".cubin")]
    assert len(cubins) == 5 and all((tmp_path / name).read_bytes() in engine for name in cubins)
    graph = onnx.load(tmp_path / "model.tensorrt.onnx", load_external_data=False)
    # Bodies, so that it can be compared; what has no plug-in is decomposed.
    assert {function.name for function in graph.functions} == {"moe", "mla_attention"}


def test_what_cannot_be_compiled_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="no kernels for SM 75"):
        tensorrt_plugins.check((75, 86))
    monkeypatch.setattr(triton_build, "missing", lambda: "triton is not installed")
    with pytest.raises(ToolMissing, match="--plugins"):
        tensorrt_plugins.check((86,))


def test_shapes_that_do_not_fit_are_refused_before_a_launch() -> None:
    record = PLUGINS["gqa_attention"]
    shapes = [[1, 2, 4, 4], [3, 1, 5, 8], [], [1, 2, 8], [1, 2], [2]]
    with pytest.raises(ValueError, match="past_lengths has the shape \\[2\\], expected \\[B=1\\]"):
        record.sizes_of(shapes, {"scale": 1.0, "kv_heads": 1})
    sizes = record.sizes_of([*shapes[:-1], [1]], {"scale": 1.0, "kv_heads": 1})
    assert sizes == {"B": 1, "T": 2, "S": 5, "scale": 1.0, "stride_layer": 40, "stride_batch": 40}
