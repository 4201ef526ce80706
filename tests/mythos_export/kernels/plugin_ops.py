"""TensorRT's plug-ins without a TensorRT and without a GPU: called as it calls them, with a stand-in for the driver
that hands over every launch, and Triton's interpreter that executes it.

    python plugin_ops.py LIBRARY CALLER moe damaged ...       # prints, as JSON, what went wrong with each

A program of its own: the stand-in is this process's libcuda for good.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from case_calls import calls_of_cases
from cuda_ops import TOLERANCE, expected_launches
from hypothesis import HealthCheck, given, seed, settings
from operator_cases import CASES, OperatorCase
from plugin_caller import BUILDING, HALF, INT32, RUNNING, TYPES, Given, Plugin, Plugins, given_of, node_of
from stand_in_gpu import Gpu, write_kernels

from mythos_export.kernels.op import OPERATORS as KNOWN
from mythos_model.formats import PLAIN

OPERATORS = ("moe", "mla_attention", "gqa_attention", "act_halting")
_EXAMPLES = 4


class Call:
    """A case's tensors, in order, and memory for the results. Only finite numbers in the chunk, where a kernel may
    multiply what it then masks."""

    def __init__(self, case: OperatorCase, plugin: Plugin) -> None:
        values = [np.nan_to_num(v, nan=3.0) if name == "chunk" else v for name, v in case.inputs.items()]
        self._tensors = [torch.from_numpy(np.ascontiguousarray(v)).reshape(v.shape).clone() for v in values]
        self.inputs = [given_of(tensor) for tensor in self._tensors]
        found = plugin.outputs(self.inputs, len(KNOWN[case.op].outputs))
        dtypes = [next(getattr(torch, name) for name, type in TYPES.items() if type == kind) for kind, _ in found]
        self.results = [_nothing(shape, dtype) for (_, shape), dtype in zip(found, dtypes, strict=True)]
        self.outputs = [given_of(result) for result in self.results]

    def distance(self, case: OperatorCase) -> float:
        return case.distance(tuple(result.numpy() for result in self.results))


def _nothing(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What no call leaves as it is: NaN, the least integer, true."""
    least = torch.nan if dtype.is_floating_point else dtype == torch.bool or torch.iinfo(dtype).min
    return torch.full(shape, least, dtype=dtype)


def check(gpu: Gpu, plugins: Plugins, case: OperatorCase) -> None:
    """From a graph's node through an engine to a launch: those of Python's plan, and the reference's result."""
    with tempfile.TemporaryDirectory() as place:
        calls = calls_of_cases([case])
        gpu.specs = write_kernels(Path(place), calls)
        kept = node_of(plugins, case, calls, Path(place)).clone().fields()
    engine = plugins.create(case.op, kept, RUNNING)
    assert engine.fields() == kept
    plugin = engine.attach()
    del engine
    call = Call(case, plugin)
    _formats(plugin, [*call.inputs, *call.outputs], len(call.outputs))
    plugin.configure([(kind, [-1] * len(shape), 0) for kind, shape, _ in call.inputs], call.outputs)
    gpu.launched.clear()
    try:
        plugin.run(call.inputs, call.outputs, stream=77)
    except ValueError as error:
        raise AssertionError(gpu.error or str(error)) from error
    expected = expected_launches(case) if any(result.numel() for result in call.results) else []
    assert gpu.launched == expected, (gpu.launched, expected)
    assert gpu.driver.stand_in_held() == 0, "scratch memory was not given back"
    far = call.distance(case)
    assert far < TOLERANCE[np.dtype(case.dtype).name], far


def _formats(plugin: Plugin, tensors: list[Given], results: int) -> None:
    """Each tensor has its own type, and no other, and lies as it is written."""
    for position, (kind, shape, address) in enumerate(tensors):
        for offered in (*TYPES.values(), 3):
            others = [*tensors[:position], (offered, shape, address), *tensors[position + 1 :]]
            assert plugin.supports(position, others, results) == (offered == kind), (position, offered)
        assert not plugin.supports(position, tensors, results, format=5)


def drawn(gpu: Gpu, plugins: Plugins, op: str) -> None:
    @seed(5)
    @settings(max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(CASES[op, PLAIN])
    def each(case: Any) -> None:
        check(gpu, plugins, case)

    each()


def gqa() -> OperatorCase:
    """A call of an attention: two rows, three new tokens behind five, 4 heads of 16 channels over 2 kv heads."""
    r = np.random.default_rng(1)
    floats = {"q": (2, 3, 4, 16), "past": (2, 2, 5, 64), "chunk": (2, 3, 64)}
    inputs: dict[str, Any] = {name: r.standard_normal(shape).astype(np.float32) for name, shape in floats.items()}
    inputs |= {"layer": np.array(1), "positions": np.tile(np.arange(5, 8), (2, 1)), "past_lengths": np.array([5, 4])}
    order = ("q", "past", "layer", "chunk", "positions", "past_lengths")
    return OperatorCase("gqa_attention", {name: inputs[name] for name in order}, {"scale": 0.25, "kv_heads": 2})


def kept_by_an_engine(gpu: Gpu, plugins: Plugins, *capabilities: int) -> dict[str, Any]:
    """What the engine of that call keeps."""
    with tempfile.TemporaryDirectory() as place:
        calls = calls_of_cases([gqa()])
        gpu.specs = write_kernels(Path(place), calls, *capabilities)
        return dict(node_of(plugins, gqa(), calls, Path(place)).fields())


def refused(words: str, work: Callable[[], Any]) -> None:
    try:
        work()
    except ValueError as error:
        assert words in str(error) and "\n" not in str(error), (words, error)
        assert str(error).startswith("the plug-in mythos::"), error
    else:
        raise AssertionError(f"nothing was refused: {words}")


def two_gpus(gpu: Gpu, plugins: Plugins) -> None:
    """Each runs the kernels that were compiled for it, in its own context, in turns too; a third has none."""
    case = gqa()
    engine = plugins.create(case.op, kept_by_an_engine(gpu, plugins, 80, 90), RUNNING)
    for context, capability in ((0, 80), (1, 90), (0, 80), (1, 90)):
        gpu.enter(context, capability)
        call = Call(case, engine)
        engine.run(call.inputs, call.outputs)
        assert call.distance(case) < TOLERANCE["float32"], gpu.error
    gpu.enter(2, 86)
    words = "the kernels of the engine were compiled for sm_80, sm_90, this GPU is sm_86: export again with --target "
    refused(f"{words}tensorrt --plugins --sm 86", lambda: engine.run(call.inputs, call.outputs))
    gpu.enter(0, 80)


def damaged(gpu: Gpu, plugins: Plugins) -> None:
    """Fields that no export wrote are refused with a reason, before the driver sees any of it."""
    kept = kept_by_an_engine(gpu, plugins)
    document = json.loads(kept["program"])
    cubin = next(name for name in kept if name.endswith(".cubin"))

    def held(words: str, **fields: Any) -> None:
        made = {name: value for name, value in {**kept, **fields}.items() if value != "gone"}
        refused(words, lambda: plugins.create("gqa_attention", made, RUNNING))

    def described(words: str, spoil: Callable[[Any], Any]) -> None:
        spoilt = json.loads(kept["program"])
        spoil(spoilt)
        held(words, program=json.dumps(spoilt))

    engine = "what the engine holds is not what this library launches from: "
    held("does not say where its compiled kernels are", program="gone")
    held(engine, program="")
    older = json.dumps(document | {"format_version": 2})
    held(f"{engine}format version 2, this library knows 4; export the model again", program=older)
    for end in range(0, len(kept["program"]), 97):
        held(engine, program=kept["program"][:end])
    held(f"the engine lacks {cubin}", **{cubin: "gone"})
    spoilt = f"{cubin} is not what its plug-in describes; the engine is damaged: export the model again"
    held(spoilt, **{cubin: kept[cubin][:-1]})
    held(spoilt, **{cubin: kept[cubin][:-1] + b"?"})
    held(spoilt, **{cubin: b""})
    held("a field without a name or without data", program=(6, 5, None))
    held("a field without a name or without data", program=(6, -5, None))
    described("key 'scale' not found", lambda d: d["attributes"].pop("scale"))
    described("scale is no float", lambda d: d["attributes"].update(scale=1))
    described("kv_heads is 4, and the kernels are for 2", lambda d: d["attributes"].update(kv_heads=4))
    described("it describes 2 calls", lambda d: d["calls"].append(d["calls"][0]))
    described("'5000' where a whole number from 1 to 1024 belongs", lambda d: d["kernels"][0].update(threads=5000))
    described("'-1' where a whole number", lambda d: d["kernels"][0].update(threads=-1))
    described("'1e+300' where a whole number", lambda d: d["kernels"][0].update(threads=1e300))
    described("nested deeper than 64", lambda d: d["kernels"][0].update(grid=["(" * 100_000, "1", "1"]))
    deep = b"[" * 1_000_000 + b"]" * 1_000_000
    threads = f'"threads": {document["kernels"][0]["threads"]}'.replace(" ", "").encode()
    assert threads in kept["program"] and b'"attributes":{' in kept["program"]
    words = "'array' where a whole number from 1 to 1024 belongs"
    held(words, program=kept["program"].replace(threads, b'"threads":' + deep))
    held(engine, program=kept["program"].replace(b'"attributes":{', b'"attributes":' + deep + b',"rest":{', 1))
    described("takes 'nobody', which is no input", lambda d: d["kernels"][0]["arguments"][0].update(value="nobody"))
    refused("of mythos::gqa_attention", lambda: plugins.create("moe", kept, RUNNING))
    r = random.Random(7)
    refusals = 0
    for _ in range(400):  # whatever is in there: made or refused, and nothing else
        code = bytearray(kept["program"])
        for _ in range(r.randint(1, 3)):
            at = r.randrange(len(code))
            code[at : at + r.randint(0, 4)] = bytes(r.randrange(256) for _ in range(r.randint(0, 4)))
        try:
            plugins.create("gqa_attention", {**kept, "program": bytes(code)}, RUNNING)
        except ValueError as error:
            assert str(error).startswith("the plug-in mythos::gqa_attention: ") and "\n" not in str(error), error
            refusals += 1
    assert refusals > 100
    assert not gpu.launched and gpu.driver.stand_in_held() == 0


def misfits(gpu: Gpu, plugins: Plugins) -> None:
    """Nodes and calls that do not fit the kernels."""
    case = gqa()
    with tempfile.TemporaryDirectory() as place:
        calls = calls_of_cases([case])
        gpu.specs = write_kernels(Path(place), calls)
        node = {"scale": 0.25, "kv_heads": 2, "variant": calls[0][1][0].variant + "\0", "kernels": place}

        def asked(words: str, **fields: Any) -> None:
            made = {name: value for name, value in {**node, **fields}.items() if value != "gone"}
            refused(words, lambda: plugins.create(case.op, made, BUILDING))

        asked(f"{place} holds no kernels of mythos::gqa_attention for 'H8'; there are: H4-G2-hd16", variant="H8")
        asked("the node has no attribute scale", scale="gone")
        asked("scale is no float", scale=1)
        asked("kv_heads holds no number", kv_heads=(10, 0, None))
        asked("kv_heads is 3, and the kernels are for 2", kv_heads=3)
        asked("does not say where its compiled kernels are", kernels="gone")
        asked(f"{place}/no/kernels.json cannot be read; the bundle is damaged", kernels=f"{place}/no")
        plugin = plugins.create(case.op, node, BUILDING)
        (cubin, *_) = sorted(Path(place).glob("*.cubin"))
        cubin.write_bytes(cubin.read_bytes()[:-1])
        asked(f"{cubin} is not what kernels.json describes; the bundle is damaged")
        (Path(place) / "kernels.json").write_text("{}")
        asked("kernels.json is not what this library launches from: [json.exception")
    call = Call(case, plugin)
    q, past, layer, chunk, positions, lengths = call.inputs

    (out,) = call.outputs

    def ran(words: str, inputs: list[Given], out: Given = out) -> None:
        refused(words, lambda: plugin.run(inputs, [out]))

    wide = (q[0], (2, 3, 4, 32), q[2])
    ran("q has the shape [2, 3, 4, 32], and no kernels of this plug-in are for it", [wide, *call.inputs[1:]])
    planned = [(0, (-1, -1, 4, 32), 0)] * 6
    refused("q has the shape [-1, -1, 4, 32], and no", lambda: plugin.configure(planned, [out]))
    short = (lengths[0], (3,), lengths[2])
    ran("past_lengths has the shape [3], expected B = 2", [q, past, layer, chunk, positions, short])
    flat = (past[0], (2, 5, 64), past[2])
    ran("past has the shape [2, 5, 64], and no kernels", [q, flat, layer, chunk, positions, lengths])
    ran("out would have the shape [2, 3, 64], and has memory for [2, 3, 63]", call.inputs, (0, (2, 3, 63), 0))
    ran("q begins at an address that is no multiple of 16", [(q[0], q[1], q[2] + 4), *call.inputs[1:]])
    ran("it is given 5 inputs and 1 outputs, expected 6 and 1", call.inputs[:5])
    refused("it is given 5 inputs", lambda: plugin.outputs(call.inputs[:5]))
    refused("q has 1 dimensions, expected 4", lambda: plugin.outputs([(0, (2,), 0), *call.inputs[1:]]))
    assert not plugin.supports(0, [(HALF, q[1], 0), *call.inputs[1:], out])
    assert not plugin.supports(2, [*call.inputs[:2], (INT32, (), 0), *call.inputs[3:], out])
    assert not gpu.launched


def two_threads(gpu: Gpu, plugins: Plugins) -> None:
    """What is refused in one while another has not asked yet is told where it was refused, and nowhere else."""
    kept, both = kept_by_an_engine(gpu, plugins), threading.Barrier(2, timeout=60)
    after = copy.copy(plugins)  # asks when both were refused
    after.refusal = lambda: plugins.refusal() if both.wait() >= 0 else ""  # type: ignore[method-assign]

    def lacks(name: str) -> None:
        spoilt = json.loads(kept["program"])
        del spoilt["attributes"][name]
        made = {**kept, "program": json.dumps(spoilt)}
        for _ in range(20):
            both.wait()
            refused(f"key '{name}' not found", lambda: after.create("gqa_attention", made, RUNNING))
            assert plugins.refusal() == ""

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(lacks, name) for name in ("scale", "kv_heads")]:
            done.result()
    assert plugins.refusal() == ""


OTHERS = {"two_gpus": two_gpus, "damaged": damaged, "misfits": misfits, "two_threads": two_threads}


def main() -> None:
    gpu, found = Gpu(), {}
    plugins = Plugins(Path(sys.argv[1]), Path(sys.argv[2]))
    for asked in sys.argv[3:]:
        gpu.launched.clear()
        try:
            if asked in OTHERS:
                OTHERS[asked](gpu, plugins)
            else:
                drawn(gpu, plugins, asked)
            found[asked] = ""
        except BaseException:
            found[asked] = str(traceback.format_exc())[:6000]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
