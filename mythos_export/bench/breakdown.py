"""Where the time goes: ONNX Runtime's own profile, folded into prelude / loop / coda and attention / experts / rest.

Regions come from time: what runs before the Loop node is the prelude, within it the loop, after it the coda. Parts come
from structure: a residual branch is what is between a value and the addition that takes up what was made of it, and
its part is told by the operators in it; its nodes are renamed before the session is opened, and what is made of them by
ONNX Runtime's optimizer keeps the beginning of their name. Time of no node is the row "between operators".
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner

from mythos_export.errors import BenchError
from mythos_export.kernels.text import DOMAINS
from mythos_runtime.ports import Ports
from mythos_runtime.spec import LoopSpec

REGIONS = ("prelude", "loop", "coda")
PARTS = ("attention", "experts", "feed-forward", "embedding and head", "rest", "between operators")
_MARK = "@"  # part@name; ONNX Runtime puts _inlfunc_<function>_ before the names in an inlined body
_PART = re.compile(f"({'|'.join(part.replace(' ', '_') for part in PARTS)}){_MARK}")
_ANY_PART = ("linear", "embedding")
_PRODUCTS = ("MatMul", "Gemm", "linear")
_ACTIVATIONS = ("Sigmoid", "Swish", "Silu", "Gelu", "Relu", "Tanh", "Softplus", "Erf")
_HEAD = "embedding and head"
_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Breakdown:
    """Seconds of one call by (region, part), which sum up to `total`; means over the faster half of the calls."""

    seconds: dict[tuple[str, str], float]
    total: float
    calls: int

    def to_json(self) -> dict[str, Any]:
        cells = [
            {"region": region, "part": part, "seconds": value, "share": value / self.total}
            for (region, part), value in self.seconds.items()
        ]
        return {"cells": cells, "total_seconds": self.total, "calls": self.calls}


def profile(
    graph: Path, spec: LoopSpec, inputs: Mapping[str, np.ndarray], library: Path | None, threads: int, calls: int = 12
) -> Breakdown:
    """Run a bundle's graph under ONNX Runtime's profiler; `library` holds the native operators, None runs the bodies.

    The profiler costs time at every node, so its seconds are longer than those of a row; the shares are what counts.
    """
    import onnxruntime as ort  # type: ignore[import-untyped]

    model = onnx.load(graph, load_external_data=False)
    if library is None:  # a linear layer's part is where it stands, which its body's nodes cannot tell
        every = [(domain, name) for domain in DOMAINS for name in _ANY_PART]
        model = onnx.inliner.inline_selected_functions(model, every)
    mark_parts(model, spec)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # as the runtime has it
    options.enable_profiling = True
    options.add_session_config_entry(_FOLDER, str(graph.parent))
    if library is not None:
        options.register_custom_ops_library(str(library))
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for _ in range(calls + 2):  # two to warm up
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return fold(events, skip=2)


def fold(events: Iterable[Mapping[str, Any]], skip: int = 0) -> Breakdown:
    """Sum a profile's events (microseconds), call by call; the first `skip` calls are left out.

    Raises:
        BenchError: the profile holds no call, or a call without a Loop.
    """
    listed = list(events)
    runs = sorted((e for e in listed if e["name"] == "model_run"), key=lambda e: e["ts"])[skip:]
    nodes = sorted((e for e in listed if e.get("cat") == "Node" and "dur" in e), key=lambda e: e["ts"])
    if not runs:
        raise BenchError("the profile holds no call of the model")
    quick = sorted(runs, key=lambda run: run["dur"])[: (len(runs) + 1) // 2]  # the others were disturbed the most
    tables = [_fold_call(run, nodes) for run in quick]
    keys = sorted({key for table in tables for key in table}, key=lambda k: (REGIONS.index(k[0]), PARTS.index(k[1])))
    seconds = {key: statistics.fmean(table.get(key, 0.0) for table in tables) / 1e6 for key in keys}
    return Breakdown(seconds, statistics.fmean(run["dur"] for run in quick) / 1e6, len(quick))


def _fold_call(run: Mapping[str, Any], nodes: list[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    start, end = run["ts"], run["ts"] + run["dur"]
    inside = [event for event in nodes if start <= event["ts"] <= end]
    loop = next((event for event in inside if event["args"].get("op_name") == "Loop"), None)
    if loop is None:
        raise BenchError("the profile has a call without a Loop; expected the graph of a bundle")
    loop_start, loop_end = loop["ts"], loop["ts"] + loop["dur"]
    table: dict[tuple[str, str], float] = defaultdict(float)
    spans = dict(zip(REGIONS, (loop_start - start, loop_end - loop_start, end - loop_end), strict=True))
    for event in inside:
        if event is loop:
            continue
        region = REGIONS[(event["ts"] >= loop_start) + (event["ts"] >= loop_end)]
        table[region, _part_of(event)] += event["dur"]
        spans[region] -= event["dur"]
    for region, left in spans.items():
        table[region, "between operators"] += max(left, 0.0)
    return table


def _part_of(event: Mapping[str, Any]) -> str:
    found = _PART.search(event["name"])
    return _told(event["args"].get("op_name", "")) or (found[1].replace("_", " ") if found else "rest")


def _told(operator: str) -> str | None:
    """The part that an operator's name alone tells."""
    if operator.endswith("moe"):
        return "experts"
    return "attention" if operator.lower().endswith("attention") else None


# -- naming nodes by their part -----------------------------------------------------------------------------------


def mark_parts(model: onnx.ModelProto, spec: LoopSpec) -> None:
    """Put the part before the name of every node, in the graph, in the loop's body and in the function bodies."""
    for function in model.functions:
        part = _told(function.name) if function.domain in DOMAINS else None
        if part is not None:
            _mark(function.node, dict.fromkeys(range(len(function.node)), part))
    for graph in (model.graph, *_bodies(model.graph)):
        _mark(graph.node, _parts(graph, spec.ports))


def _bodies(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    return [attribute.g for node in graph.node if node.op_type == "Loop" for attribute in node.attribute if attribute.g]


def _mark(nodes: Any, parts: Mapping[int, str]) -> None:
    for index, node in enumerate(nodes):
        node.name = f"{parts.get(index, 'rest').replace(' ', '_')}{_MARK}{node.name or node.op_type}_{index}"


def _parts(graph: onnx.GraphProto, ports: Ports) -> dict[int, str]:
    """Index of a node to its part, for the nodes that belong to one."""
    nodes = list(graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    users: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for name in node.input:
            users[name].append(index)
    parts: dict[int, str] = {}
    for branch in _branches(nodes, producer, users):
        kinds = [nodes[index].op_type for index in branch]
        told = {part for kind in kinds if (part := _told(kind))}
        if not told and any(kind in _PRODUCTS for kind in kinds) and any(kind in _ACTIVATIONS for kind in kinds):
            told = {"feed-forward"}
        if len(told) == 1:
            parts.update(dict.fromkeys(branch, told.pop()))
    for index in users[ports.of("ids").name]:
        if nodes[index].op_type in ("Gather", "embedding"):
            parts[index] = _HEAD
    parts |= dict.fromkeys(_head(nodes, producer, ports.of("logits").name), _HEAD)
    for index in reversed(range(len(nodes))):  # what is made for one part alone, of its weights say, belongs to it
        wanted = {parts.get(user, "rest") for name in nodes[index].output for user in users[name]}
        if index not in parts and len(wanted) == 1:
            parts[index] = wanted.pop()
    return parts


def _branches(nodes: list[Any], producer: Mapping[str, int], users: Mapping[str, list[int]]) -> list[set[int]]:
    """The residual branches: between a value x and the addition of x and what was made of it, no other within."""
    found: dict[int, set[int]] = {}
    for join, node in enumerate(nodes):
        if node.op_type != "Add":
            continue
        for x, made in (node.input, reversed(node.input)):
            if made not in producer or (x not in producer and x not in users):
                continue
            branch = _downstream(nodes, users[x], users) & _upstream(nodes, producer[made], producer)
            if producer[made] in branch:
                found[join] = branch
    return [branch for branch in found.values() if branch.isdisjoint(found)]


def _head(nodes: list[Any], producer: Mapping[str, int], logits: str) -> set[int]:
    """From the product that makes the logits to these, and the norm before it; nothing in a graph without logits."""
    found: set[int] = set()
    index = producer.get(logits)
    while index is not None:
        found.add(index)
        before = next((producer[name] for name in nodes[index].input if name in producer), None)
        if nodes[index].op_type in _PRODUCTS:
            if before is not None and nodes[before].op_type.endswith("Normalization"):
                found.add(before)
            return found
        index = before
    return set()


def _downstream(nodes: list[Any], first: list[int], users: Mapping[str, list[int]]) -> set[int]:
    found, waiting = set(first), list(first)
    while waiting:
        for name in nodes[waiting.pop()].output:
            for index in users.get(name, ()):
                if index not in found:
                    found.add(index)
                    waiting.append(index)
    return found


def _upstream(nodes: list[Any], last: int, producer: Mapping[str, int]) -> set[int]:
    found, waiting = {last}, [last]
    while waiting:
        for name in nodes[waiting.pop()].input:
            index = producer.get(name)
            if index is not None and index not in found:
                found.add(index)
                waiting.append(index)
    return found
