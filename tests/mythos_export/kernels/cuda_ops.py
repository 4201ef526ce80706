"""The operators of ONNX Runtime's CUDA provider, without one: the library built for the CPU provider, a stand-in for
the driver that hands over every launch, and Triton's interpreter that executes it.

    python cuda_ops.py linear:int8 /path/of/a/bundle two_gpus ...        # prints, as JSON, what went wrong with each

A program of its own: the stand-in is this process's libcuda for good.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped]
from case_calls import calls_of_cases, plans_of, precision_of
from cpu_ops import node_model
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from operator_cases import CASES, FEW, PACKED, Array, OperatorCase, reference_of, results
from paged_cases import paged_inputs
from stand_in_gpu import CAPABILITY, Gpu, open_session, write_kernels

from mythos_export.kernels.cuda.launch import launch_of
from mythos_export.kernels.cuda.signatures import SIGNATURES
from mythos_export.kernels.launch_plan import choose, evaluate
from mythos_export.kernels.op import OPERATORS, calls_of
from mythos_export.kernels.text import PORTABLE_DOMAIN
from mythos_export.passes.name_dimensions import NAMES
from mythos_model.formats import FORMATS, PLAIN

EVERY = (*(op for op in SIGNATURES if op != "linear"), *(f"{op}:{f}" for op in ("moe", "linear") for f in FORMATS))
EVERY = (*EVERY, *(f"{op}:{PACKED}" for op in ("paged_mla_attention", "paged_gqa_attention")))
SERVED = tuple(name for name in EVERY if not name.endswith((PLAIN, "a8")))
_FED = {
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_EXAMPLES = {"act_halting": 10, "linear": 5}
TOLERANCE = {"float32": 1e-5, "float16": 5e-3}


def model_of(case: OperatorCase) -> bytes:
    """One node of the case's operator."""
    model = node_model(case.op, case.dtype, packed=case.call.packed, **case.attributes)
    if case.call.format == "fp8":
        model.graph.node[0].domain = model.opset_import[1].domain = PORTABLE_DOMAIN
    return bytes(model.SerializeToString())


def expected_launches(case: OperatorCase) -> list[Any]:
    """What Python's launcher starts for the same call."""
    sizes = _sizes(case)
    plan = choose(plans_of(case), sizes)
    known, found = plan.resolve(sizes), []
    for spec in plan.launches:
        launch = launch_of(spec, 0, 0, defaultdict(int), known)
        if launch is not None:
            pairs = zip(spec.arguments, launch.arguments, strict=False)
            scalars = [value.value for argument, value in pairs if not argument.is_pointer]
            found.append((spec.name, list(launch.grid), launch.threads, scalars))
    return found


def _sizes(case: OperatorCase) -> dict[str, Any]:
    if case.op in ("moe", "linear"):
        return {"n": int(np.prod(case.inputs["x"].shape[:-1]))}
    if case.op == "rounded_line":
        return {"parts": case.inputs["x"].size // case.attributes["width"]}
    if case.op == "act_halting":
        return {"rows": case.inputs["cumulative"].size, "threshold_stride": min(case.inputs["threshold"].ndim, 1)}
    known: dict[str, Any] = dict(case.attributes)
    for tensor, value in zip(SIGNATURES[case.op].inputs, case.inputs.values(), strict=True):
        known |= dict(zip(tensor.extents or (), value.shape, strict=True))
    return {name: evaluate(expression, known) for name, expression in SIGNATURES[case.op].sizes.items()}


def check(gpu: Gpu, case: OperatorCase, folder: Path) -> None:
    """One call: the launches are those of Python's plan, and the result the reference's."""
    values = {k: np.nan_to_num(v, nan=3.0) if k == "chunk" else v for k, v in case.inputs.items()}
    session = open_session(model_of(case), folder)
    gpu.launched.clear()
    try:
        got = session.run(None, values)
    except Exception as error:
        raise AssertionError(gpu.error or str(error)) from error
    expected = expected_launches(case) if any(result.size for result in got) else []
    assert gpu.launched == expected, (gpu.launched, expected)
    assert gpu.driver.stand_in_held() == 0, "scratch memory was not given back"
    pages = values["cache"].nbytes if "cache" in values else 0  # the result is no buffer of the caller's
    assert gpu.driver.stand_in_copied() == pages
    far = case.distance(tuple(got))
    assert far < TOLERANCE[np.dtype(case.dtype).name], far


def drawn(gpu: Gpu, op: str) -> None:
    """Calls of an operator, two in a folder: each finds the kernels that are for it."""
    name, _, form = op.partition(":")

    @seed(3)
    @settings(
        max_examples=_EXAMPLES.get(name, 3), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def both(data: Any) -> None:
        first, second = (data.draw(FEW.get((name, form or PLAIN), CASES[name, form or PLAIN])) for _ in range(2))
        alike = [first] + [second] * (precision_of(first) == precision_of(second))
        with tempfile.TemporaryDirectory() as place:
            gpu.specs = write_kernels(Path(place), calls_of_cases(alike))
            for case in alike:
                check(gpu, case, Path(place))

    both()


def whole(gpu: Gpu, bundle: Path) -> None:
    """model.onnx of a bundle, its Loop and all: the logits and depths of its portable bodies."""
    file, made = bundle / "model.onnx", []
    for call in calls_of(ir.load(file)):
        make = OPERATORS[call.operator].plans
        served = make is not None and call.format in OPERATORS[call.operator].kernels
        made.append((call, make(call, "fp32") if served and make is not None else ()))
    plain = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feeds = {value.name: fed(value) for value in plain.get_inputs()}
    with tempfile.TemporaryDirectory() as place:
        gpu.specs = write_kernels(Path(place), made)
        gpu.launched.clear()
        try:
            model = onnx.load(
                file
            ).SerializeToString()  # weights mapped from a file may begin anywhere; on a GPU none do
            got = open_session(model, Path(place)).run(None, feeds)
        except Exception as error:
            raise AssertionError(gpu.error or str(error)) from error
    launched = {gpu.specs[name].operator for name, *_ in gpu.launched}
    assert launched == {call.operator for call, plans in made if plans}, launched
    for have, want in zip(got, plain.run(None, feeds), strict=True):
        assert np.abs(have - want).max() <= 1e-4 * max(np.abs(want).max(), 1)


def act() -> OperatorCase:
    """A call of the halting."""
    r = np.random.default_rng(0)
    floats = {"h": (1, 2, 8), "out": (1, 2, 8), "cumulative": (1, 2), "weight": (1, 8), "bias": (1,), "threshold": ()}
    inputs: dict[str, Any] = {name: r.random(shape, np.float32) for name, shape in floats.items()}
    inputs |= {"halted": np.zeros((1, 2), bool), "depth": np.zeros((1, 2), np.int32)}
    order = ("h", "out", "cumulative", "halted", "depth", "weight", "bias", "threshold")
    return OperatorCase("act_halting", {name: inputs[name] for name in order}, {})


def two_gpus(gpu: Gpu) -> None:
    """Each runs the kernels that were compiled for it, in its own context, in turns too; a third has none."""
    case = act()
    with tempfile.TemporaryDirectory() as place:
        gpu.specs = write_kernels(Path(place), calls_of_cases([case]), 80, 90)
        session = open_session(model_of(case), Path(place))
        for context, capability in ((0, 80), (1, 90), (0, 80), (1, 90)):
            gpu.enter(context, capability)
            assert case.distance(tuple(session.run(None, case.inputs))) < TOLERANCE["float32"], gpu.error
        gpu.enter(2, 86)
        _refused("were compiled for sm_80, sm_90, this GPU is sm_86: export again", session, case)
    gpu.enter(0, CAPABILITY)


def damaged(gpu: Gpu) -> None:
    """A cubin that is not the one described does not reach the driver, nor does a senseless size of scratch memory. The
    folder is found from wherever the process is when a kernel is first launched."""
    case, here = act(), Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        gpu.specs = write_kernels(Path(place), calls_of_cases([case]))
        os.chdir(Path(place).parent)
        session = open_session(model_of(case), Path(Path(place).name))
        os.chdir(here)
        cubins = {path: path.read_bytes() for path in Path(place).glob("*.cubin")}
        for spoil in (lambda code: code[:-1], lambda code: code[:-1] + b"?"):
            for path, code in cubins.items():
                path.write_bytes(spoil(code))
            _refused(r"cubin is not what kernels.json describes; the bundle is damaged", session, case)
        for path, code in cubins.items():
            path.write_bytes(code)
        assert case.distance(tuple(session.run(None, case.inputs))) < TOLERANCE["float32"], gpu.error
        document = json.loads((Path(place) / "kernels.json").read_text())
        senseless, half = "spoilt would be larger than memory can be", str(2**59)
        for shape, words in (
            (["0 - 1"], "spoilt would have an extent of -1"),
            ([half, half], senseless),
            (["3", half], senseless),  # the second of two
            ([f"4 * {half} - 1"], senseless),  # when it is rounded up
        ):
            for plan in document["plans"]:
                plan["scratch"] = [{"name": "spoilt", "type": "fp32", "shape": shape}] * 2
            (Path(place) / "kernels.json").write_text(json.dumps(document))
            _refused(words, open_session(model_of(case), Path(place)), case)
    assert gpu.driver.stand_in_held() == 0


def updates(gpu: Gpu) -> None:
    """What an output says of the input that it updates holds together, or the library takes no call of the bundle."""
    inputs = {**paged_inputs(7, [(33, 2), (0, 1)], 24, 1, np.float32), "q": np.zeros((3, 4, 6), np.float32)}
    case = OperatorCase("paged_gqa_attention", inputs, {"scale": 0.25, "kv_heads": 2})
    with tempfile.TemporaryDirectory() as place:
        gpu.specs = write_kernels(Path(place), calls_of_cases([case]))
        file = Path(place) / "kernels.json"
        sound = file.read_text()
        for change, words in (
            ({"type": "i8"}, "cache_next is i8 and updates 'cache', which is stored"),
            ({"updates": None}, "cache_next is an output without extents, and updates no input that has some"),
            ({"updates": "scale"}, "cache_next updates 'scale', which is no input of the call"),
        ):
            document = json.loads(sound)
            for known in document["operators"]:
                for output in known["outputs"]:
                    output.update(change if output["name"] == "cache_next" else {})
            file.write_text(json.dumps(document))
            try:
                open_session(model_of(case), Path(place))
            except Exception as error:
                assert words in str(error), (words, error)
            else:
                raise AssertionError(f"nothing was refused: {words}")


def _refused(words: str, session: ort.InferenceSession, case: OperatorCase) -> None:
    try:
        session.run(None, case.inputs)
    except Exception as error:
        assert words in str(error), (words, error)
    else:
        raise AssertionError(f"nothing was refused: {words}")


def fed(value: Any) -> Array:
    """For an input of a model's graph: three new tokens behind four, twice, in three loops."""
    sizes = {NAMES[symbol]: size for symbol, size in {"B": 2, "T": 3, "P": 4, "N": 3}.items()}
    shape = [sizes[size] if isinstance(size, str) else size for size in value.shape]
    r = np.random.default_rng(len(value.name))
    known = {"past_lengths": 4, "max_loops": 3, "halt_threshold": 0.6, "early_exit": True, "positions": np.arange(4, 7)}
    if value.name == "input_ids":
        found: Array = r.integers(0, 40, shape)
    else:
        found = np.broadcast_to(known[value.name], shape) if value.name in known else r.standard_normal(shape)
    return found.astype(_FED[value.type])


def in_place(gpu: Gpu) -> None:
    """Pages that are given as the cache before and after are written where they are, and nothing else of them; others
    are copied whole before. Where there are no rows, that is all."""
    drawn = paged_inputs(7, [(33, 2), (0, 1)], 24, 1, np.float32)
    drawn["cache"] = np.nan_to_num(drawn["cache"])
    for rows in (len(drawn["span"]), 0):
        by_row = {name: drawn[name][:rows] for name in ("entry", "span", "position")}
        inputs = {**drawn, **by_row}
        inputs["entry"] = np.nan_to_num(inputs["entry"])
        q = np.random.default_rng(0).standard_normal((rows, 4, 6)).astype(np.float32)
        case = OperatorCase("paged_gqa_attention", {"q": q, **inputs}, {"scale": 0.25, "kv_heads": 2})
        with tempfile.TemporaryDirectory() as place:
            gpu.specs = write_kernels(Path(place), calls_of_cases([case]))
            session = open_session(model_of(case), Path(place))
            names = [value.name for value in session.get_outputs()]
            elsewhere = session.run(None, case.inputs)
            assert gpu.driver.stand_in_copied() == inputs["cache"].nbytes
            pages, binding = ort.OrtValue.ortvalue_from_numpy(inputs["cache"].copy()), session.io_binding()
            for name, value in case.inputs.items():
                binding.bind_ortvalue_input(name, pages if name == "cache" else ort.OrtValue.ortvalue_from_numpy(value))
            binding.bind_output(names[0])
            binding.bind_ortvalue_output(names[1], pages)
            session.run_with_iobinding(binding)
            assert gpu.driver.stand_in_copied() == 0
            out = binding.get_outputs()[0].numpy()
            assert np.array_equal(out, elsewhere[0]) and np.array_equal(pages.numpy(), elsewhere[1])
            _, after = results(reference_of(case.op)(**case.inputs, **case.attributes))
            assert np.array_equal(pages.numpy(), after) and gpu.driver.stand_in_held() == 0, gpu.error


OTHERS = {"two_gpus": two_gpus, "damaged": damaged, "in_place": in_place, "updates": updates}


def main() -> None:
    gpu, found = Gpu(), {}
    for op in sys.argv[1:]:
        try:
            if op in OTHERS:
                OTHERS[op](gpu)
            elif "/" in op:
                whole(gpu, Path(op))
            else:
                drawn(gpu, op)
            found[op] = ""
        except BaseException:
            found[op] = str(traceback.format_exc())[:6000]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
