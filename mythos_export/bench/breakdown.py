"""Where the time goes: ONNX Runtime's own profile, folded into prelude / loop / coda and attention / experts / rest.

Regions come from time: what runs before the Loop node is the prelude, within it the loop, after it the coda. Parts come
from structure: a residual branch starts at the norm whose weight is called `attn_norm` or `ffn_norm` and ends at the
addition that takes it up; its nodes are renamed before the session is opened, and what ONNX Runtime's optimizer makes
of them keeps the beginning of their name. Time that no node accounts for is the row "between operators".
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
from mythos_export.kernels.text import DOMAIN

REGIONS = ("prelude", "loop", "coda")
PARTS = ("attention", "experts", "feed-forward", "embedding and head", "rest", "between operators")
_MARK = "@"  # part@name; ONNX Runtime puts _inlfunc_<function>_ before the names in an inlined body
_PART = re.compile(f"({'|'.join(part.replace(' ', '_') for part in PARTS)}){_MARK}")
_MOE = ("moe", "int8_moe", "int4_moe")
_ANY_PART = ("int8_linear", "int4_linear", "int8_embedding", "int4_embedding")
_OPERATOR_PARTS = dict.fromkeys(_MOE, "experts") | {"mla_attention": "attention", "gqa_attention": "attention"}
_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Breakdown:
    """Seconds of one call by (region, part), which sum up to `total`; means over the faster half of the calls."""

    seconds: dict[tuple[str, str], float]
    total: float
    calls: int

    def by_part(self, part: str) -> float:
        return sum(value for (_, p), value in self.seconds.items() if p == part)

    def to_json(self) -> dict[str, Any]:
        cells = [
            {"region": region, "part": part, "seconds": value, "share": value / self.total}
            for (region, part), value in self.seconds.items()
        ]
        return {"cells": cells, "total_seconds": self.total, "calls": self.calls}


def profile(
    graph: Path, inputs: Mapping[str, np.ndarray], library: Path | None, threads: int, calls: int = 12
) -> Breakdown:
    """Run a bundle's graph under ONNX Runtime's profiler; `library` holds the native operators, None runs the bodies.

    The profiler costs time at every node, so its seconds are longer than those of a row; the shares are what counts.
    """
    import onnxruntime as ort  # type: ignore[import-untyped]

    model = onnx.load(graph, load_external_data=False)
    if library is None:  # a linear layer's part is where it stands, which its body's nodes cannot tell
        model = onnx.inliner.inline_selected_functions(model, [(DOMAIN, name) for name in _ANY_PART])
    mark_parts(model)
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
    operator = event["args"].get("op_name", "")
    if operator in _OPERATOR_PARTS:
        return _OPERATOR_PARTS[operator]
    found = _PART.search(event["name"])
    return found[1].replace("_", " ") if found else "rest"


# -- naming nodes by their part -----------------------------------------------------------------------------------


def mark_parts(model: onnx.ModelProto) -> None:
    """Put the part before the name of every node, in the graph, in the loop's body and in the function bodies."""
    for function in model.functions:
        if function.domain == DOMAIN and function.name in _OPERATOR_PARTS:
            _mark(function.node, dict.fromkeys(range(len(function.node)), _OPERATOR_PARTS[function.name]))
    for graph in (model.graph, *_bodies(model.graph)):
        _mark(graph.node, _parts(graph))


def _bodies(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    return [attribute.g for node in graph.node if node.op_type == "Loop" for attribute in node.attribute if attribute.g]


def _mark(nodes: Any, parts: Mapping[int, str]) -> None:
    for index, node in enumerate(nodes):
        node.name = f"{parts.get(index, 'rest').replace(' ', '_')}{_MARK}{node.name or node.op_type}_{index}"


def _parts(graph: onnx.GraphProto) -> dict[int, str]:
    """Index of a node to its part, for the nodes that belong to one."""
    nodes = list(graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output}
    users: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for name in node.input:
            users[name].append(index)
    parts: dict[int, str] = {}
    for index, node in enumerate(nodes):
        for weight in node.input:
            if weight.endswith((".attn_norm.weight", ".ffn_norm.weight")):
                branch = _branch(nodes, index, producer, users)
                part = "attention" if weight.endswith(".attn_norm.weight") else "feed-forward"
                if any(nodes[i].op_type in _MOE for i in branch):
                    part = "experts"
                parts.update(dict.fromkeys(branch, part))
            elif weight == "norm.weight":
                parts.update(dict.fromkeys(_downstream(nodes, index, users) | {index}, "embedding and head"))
            elif weight.startswith("embed.weight") and node.op_type in ("Gather", "int8_embedding", "int4_embedding"):
                parts[index] = "embedding and head"
    for index in reversed(range(len(nodes))):  # what is made for one part alone, of its weights say, belongs to it
        wanted = {parts.get(user, "rest") for name in nodes[index].output for user in users[name]}
        if index not in parts and len(wanted) == 1:
            parts[index] = wanted.pop()
    return parts


def _branch(nodes: list[Any], norm: int, producer: Mapping[str, int], users: Mapping[str, list[int]]) -> set[int]:
    """The nodes from a norm to the addition that joins its branch with the norm's own input, that one left out."""
    below = _downstream(nodes, norm, users)
    x = nodes[norm].input[0]
    joins = [index for index in users[x] if index in below and nodes[index].op_type == "Add"]
    if not joins:
        raise BenchError(f"no residual addition is found behind the node {nodes[norm].name}; export the model again")
    above: set[int] = set()
    waiting = [name for name in nodes[min(joins)].input if name != x]
    while waiting:
        index = producer.get(waiting.pop())
        if index is not None and index in below and index not in above:
            above.add(index)
            waiting += nodes[index].input
    return above | {norm}


def _downstream(nodes: list[Any], start: int, users: Mapping[str, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        for name in nodes[waiting.pop()].output:
            for index in users.get(name, ()):
                if index not in found:
                    found.add(index)
                    waiting.append(index)
    return found
