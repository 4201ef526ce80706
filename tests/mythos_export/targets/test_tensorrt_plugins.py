"""Operators as plug-ins in real TensorRT-RTX engines: shapes, formats and serialization. No engine is executed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from golden_bundles import Bundles

from mythos_export.errors import TargetError, ToolFailed, ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.kernels.act import plan as act_plan
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.cuda.signatures import SIGNATURES, described
from mythos_export.kernels.fallback import PLUGIN, TENSORRT
from mythos_export.kernels.gqa import plan as gqa_plan
from mythos_export.kernels.launch_plan import Plan
from mythos_export.kernels.mla import plan as mla_plan
from mythos_export.kernels.moe import plan as moe_plan
from mythos_export.kernels.op import OPERATORS
from mythos_export.lower import Lowered
from mythos_export.targets import tensorrt_plugins
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, check_request
from mythos_export.targets.tensorrt_build import BuildRequest, Range, build, graph_inputs, profiles_for
from mythos_export.targets.tensorrt_plugins import KERNELS, VARIANT
from mythos_runtime import read_manifest
from mythos_runtime.tensorrt import find_plugin_library, plugins, register_plugins
from mythos_runtime.tensorrt.plugins import NAMESPACE

SM = 86
LACK = triton_build.missing() or (None if importlib.util.find_spec("tensorrt_rtx") else "tensorrt_rtx is not installed")
LACK = LACK or (None if find_plugin_library() else "the library of plug-ins is not built: make native")
pytestmark = pytest.mark.skipif(LACK is not None, reason=str(LACK))

# Of the sizes of `looped_onnx`: dim 16, cache width 8. Decode plans only, which is half of the compiling.
PLANS: dict[str, Plan] = {
    "moe": moe_plan.plans(16, 16, 32, 4, 2, "fp16")[0],
    "mla_attention": mla_plan.plans(2, 4, 4, 8, 4, "fp16")[0],
    "gqa_attention": gqa_plan.plans(4, 1, 4, "fp16")[0],
    "act_halting": act_plan.plans(16)[0],
}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "moe": {},
    "mla_attention": {"scale": 0.25, "v_head_dim": 8},
    "gqa_attention": {"scale": 0.5, "kv_heads": 1},
    "act_halting": {},
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
    "act_halting": """
    state = Cast<to = 1>(h)
    is_over = GreaterOrEqual(cum, halt_threshold)
    loops = Cast<to = 6>(is_over)
    chance, answer, reached, over, depth, running = mythos.act_halting<variant = "D16">(
        state, state, cum, is_over, loops, halt_weight, halt_bias, halt_threshold)
    runs = Cast<to = 1>(running)
    times = Cast<to = 1>(depth)
    shared = Add(times, runs)
    share = Unsqueeze(shared, ax2)
    scaled = Mul(answer, share)
    update = CastLike(scaled, h)
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
HALTING = {"halt_weight": (1, 16), "halt_bias": (1,)}
"""Those that are float32 in any model."""


CACHE = {
    **{"past": (None, None, None, 8), "layer": (), "chunk": (None, None, 8)},
    **{"positions": (None, None), "past_lengths": (None,)},
}
SHAPES: dict[str, dict[str, tuple[int | None, ...]]] = {
    "moe": {
        **{"x": (None, None, 16), "expert_index": (None, None, 2), "expert_weight": (None, None, 2)},
        **{"routed_gate_up": (4, 32, 16), "routed_down": (4, 16, 16)},
        **{"shared_gate_up": (64, 16), "shared_down": (16, 32)},
    },
    "mla_attention": {"q_nope": (None, None, 2, 4), "q_rope": (None, None, 2, 4), **CACHE, "kv_up": (24, 4)},
    "gqa_attention": {"q": (None, None, 4, 4), **CACHE},
    "act_halting": {
        **dict.fromkeys(("h", "out"), (None, None, 16)),
        **dict.fromkeys(("cumulative", "halted", "depth"), (None, None)),
        **{"weight": (1, 16), "bias": (1,), "threshold": ()},
    },
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    specs = [spec for plan in PLANS.values() for spec in plan.launches]
    calls = [(OperatorCall(op, ATTRIBUTES[op], SHAPES[op]), (plan,)) for op, plan in PLANS.items()]
    triton_build.build(specs, [SM], folder, plans=list(PLANS.values()), more=described(calls))
    return folder


def edited(kernels: Path) -> Callable[[onnx.ModelProto], None]:
    """Gives the graph the weights that its operator takes, and the operator the folder of its kernels."""

    def edit(model: onnx.ModelProto) -> None:
        body = model.graph.node[-1].attribute[0].g.node
        used = {name for node in body for name in node.input}
        for name, shape in (WEIGHTS | HALTING).items():
            if name in used:
                ones = np.ones(shape, np.float32 if name in HALTING else np.float16)
                model.graph.initializer.append(onnx.numpy_helper.from_array(ones, name))
        for node in body:
            if node.domain == NAMESPACE:
                node.attribute.append(onnx.helper.make_attribute(KERNELS, str(kernels)))

    return edit


def built(path: Path) -> bytes:
    profiles = profiles_for(
        graph_inputs(onnx.load(path, load_external_data=False)),
        batch=Range(1, 1, 2),
        tokens=Range(1, 4, 8),
        context=Range(0, 8, 16),
        loops=Range(1, 2, 4),
    )
    result = build(BuildRequest(path, path.parent / "engines", tuple(profiles), sms=(SM,), plugins=True))
    assert result.state == "built, not executed"
    return result.engines[0].path.read_bytes()


@pytest.mark.parametrize("operator", list(PLANS))
def test_it_builds_inside_the_loop_and_the_engine_holds_its_kernels(
    operator: str, looped_onnx: Callable[..., Path], kernels: Path
) -> None:
    engine = built(looped_onnx(body=BODIES[operator], edit=edited(kernels)))
    for spec in PLANS[operator].launches:
        assert (kernels / f"{spec.name}.sm_{SM}.cubin").read_bytes() in engine, spec.name
    start = engine.index(b'{"architectures"')
    held, _ = json.JSONDecoder().raw_decode(engine[start : start + 100_000].decode(errors="ignore"))
    whole = json.loads((kernels / "kernels.json").read_text())
    assert held["attributes"] == ATTRIBUTES[operator]
    (call,), (plan,), (known,) = held["calls"], held["plans"], held["operators"]
    assert call in whole["calls"] and plan in whole["plans"] and known in whole["operators"]
    assert call["operator"] == plan["operator"] == known["name"] == operator
    assert [kernel["name"] for kernel in held["kernels"]] == [spec.name for spec in PLANS[operator].launches]
    assert str(kernels).encode() not in engine  # a path of the machine that built it


def test_what_a_plug_in_refuses_is_the_build_s_error(looped_onnx: Callable[..., Path], kernels: Path) -> None:
    """A cubin that is not the one described, and sizes that no kernels are for."""
    damaged = shutil.copytree(kernels, kernels.parent / "damaged")
    (cubin, *_) = sorted(damaged.glob("moe_decode_up*.cubin"))
    cubin.write_bytes(cubin.read_bytes()[:-1])
    with pytest.raises(ToolFailed, match=rf"mythos::moe: .*{cubin.name} is not what kernels.json describes"):
        built(looped_onnx(body=BODIES["moe"], edit=edited(damaged)))
    other = BODIES["moe"].replace("Fs32", "Fs64")
    with pytest.raises(ToolFailed, match=r"no kernels of mythos::moe for 'D16-F16-Fs64-E4-K2'; there are: D16-F16-Fs3"):
        built(looped_onnx(body=other, edit=edited(kernels)))


def test_the_library_has_what_the_registry_says() -> None:
    trt: Any = importlib.import_module("tensorrt_rtx")
    for _ in range(2):
        register_plugins(trt, "this test")
    registry = trt.get_plugin_registry()
    found = {
        creator.name: [field.name for field in creator.field_names]
        for creator in registry.all_creators
        if creator.plugin_namespace == NAMESPACE and creator.plugin_version == "1"
    }
    assert found == {
        name: [*(attribute for attribute, _ in SIGNATURES[name].attributes), VARIANT, KERNELS]
        for name, operator in OPERATORS.items()
        if operator.plugin
    }
    assert found.keys() == PLANS.keys()
    for name in found:
        assert set(SIGNATURES[name].sizes) == set(PLANS[name].sizes)
    assert registry.get_creator("moe", "1", NAMESPACE) is not None


def test_the_target_s_bundle_carries_what_its_engine_calls(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans_for = triton_build.plans_for  # decode plans only: half of the compiling
    monkeypatch.setattr(
        sys.modules["mythos_export.kernels.triton_build.build"],
        "plans_for",
        lambda *of: tuple(plan for plan in plans_for(*of) if plan.path in ("decode", "any")),
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
    assert (built.proof, built.operators) == (("tensorrt engine",), {TENSORRT: PLUGIN})
    assert [engine["plugins"] for engine in built.details["engines"]] == [True]
    assert [name for name in built.files if name.endswith(".ep_context.onnx")]
    present = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert present == {*built.files, *files}
    engine = (tmp_path / f"engines/tensorrt_rtx-sm{SM}.engine").read_bytes()
    cubins = [name for name in built.files if name.endswith(".cubin")]
    assert len(cubins) == 7 and all((tmp_path / name).read_bytes() in engine for name in cubins)
    graph = onnx.load(tmp_path / "model.tensorrt.onnx", load_external_data=False)
    assert not [a.name for node in _nodes(graph.graph) for a in node.attribute if a.name in (VARIANT, KERNELS)]
    # Bodies, so that it can be compared.
    assert {function.name for function in graph.functions} == {"moe", "mla_attention", "act_halting"}


def test_no_kernels_but_the_plug_ins_are_compiled(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator without one is decomposed."""
    asked: list[str] = []
    without = replace(OPERATORS["act_halting"], plugin=False)
    monkeypatch.setitem(OPERATORS, "act_halting", without)
    monkeypatch.setattr(triton_build, "build_for", lambda calls, *_, **__: asked.extend(c.operator for c in calls))
    monkeypatch.setattr(triton_build, "files_of", lambda manifest: ())
    model = ir.load(bundles["mla_decode"] / "model.onnx")
    tensorrt_plugins.compile_kernels(model, "fp32", tmp_path, (SM,), lambda *_: None)
    assert set(asked) == {"moe", "mla_attention"}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def test_what_cannot_be_compiled_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="no kernels for SM 75"):
        tensorrt_plugins.check((75, 86))
    with monkeypatch.context() as patch:
        patch.setattr(plugins, "NATIVE", Path("/nowhere"))
        with pytest.raises(ToolMissing, match=r"--plugins has TensorRT load a library, but /nowhere/.*make native"):
            tensorrt_plugins.check((86,))
    monkeypatch.setattr(triton_build, "missing", lambda: "triton is not installed")
    with pytest.raises(ToolMissing, match="--plugins"):
        tensorrt_plugins.check((86,))
