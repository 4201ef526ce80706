"""What a manifest says of a bundle whose experts are in shards: its field `shards`.

    counts  [how many experts each shard has], in the order of their numbers
    graphs  {graph: ports}: the step, cut at its experts

        route    what the step reads -> the rows that the experts get, which ones, their weights, and what `rest` needs
        shared   these rows -> what the shared experts put out; not there where there are none
        experts  rows, and pairs of row and expert -> what these experts put out; one file a shard, of the same ports
        rest     all of that -> the state, one loop on

Files are route.onnx and so on; of shard 1 of 4, experts-1-of-4.onnx and experts-1-of-4.safetensors.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import Fields
from mythos_runtime.ports import INPUT_ROLES, OUTPUT_ROLES, Port, Ports
from mythos_runtime.row_ports import STEP
from mythos_runtime.spec import LoopSpec
from mythos_runtime.spec_reader import read_ports

ROUTE, SHARED, EXPERTS, REST = "route", "shared", "experts", "rest"
MOST_SHARDS, MOST_EXPERTS = 1024, 1 << 20

_PASSED = {
    "x": "rows that the experts get",
    "expert_index": "the experts that a row chose",
    "expert_weight": "what each of them counts",
    "shared": "what the shared experts put out",
    "between": "anything else that the rest of the step reads",
}
_INPUTS = (*INPUT_ROLES, *_PASSED, "row", "expert", "parts")  # a pair's row and expert; what the chosen experts put out
_OUTPUTS = (*OUTPUT_ROLES, *_PASSED, "out")  # what the expert of a pair puts out


@dataclass(frozen=True)
class ExpertShards:
    """See the module's docstring for the fields."""

    counts: tuple[int, ...]
    graphs: Mapping[str, Ports]

    @property
    def dim(self) -> int:
        """D: the width of a row."""
        return int(self.graphs[EXPERTS].of("x").dims[1])

    def experts(self, index: int) -> range:
        """The numbers of a shard's experts."""
        first = sum(self.counts[:index])
        return range(first, first + self.counts[index])

    def owners(self) -> np.ndarray:
        """int64 [E]: the shard of every expert."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def name(self, index: int) -> str:
        """Of a shard's files, without their ending."""
        return f"{EXPERTS}-{index + 1}-of-{len(self.counts)}"

    def files(self) -> list[str]:
        """The graphs' files, the trunk's first."""
        trunk = [f"{graph}.onnx" for graph in (ROUTE, SHARED, REST) if graph in self.graphs]
        return trunk + [f"{self.name(index)}.onnx" for index in range(len(self.counts))]

    def apart(self) -> list[str]:
        """The files that only the shards' own processes read."""
        return [f"{self.name(index)}.{kind}" for index in range(len(self.counts)) for kind in ("onnx", "safetensors")]

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `read_shards` reads back to an equal entry."""
        graphs = {
            name: {side: [_plain(port) for port in getattr(ports, side)] for side in ("inputs", "outputs")}
            for name, ports in self.graphs.items()
        }
        return {"counts": list(self.counts), "graphs": graphs}


def expert_ports(dim: int) -> Ports:
    """Of a shard's graph: R rows of D, W pairs."""
    pairs = (Port("row", "int64", ("W",), "row"), Port("expert", "int64", ("W",), "expert"))
    return Ports((Port("x", "float32", ("R", dim), "x"), *pairs), (Port("out", "float32", ("W", dim), "out"),))


def shared_ports(dim: int, x: str = "x") -> Ports:
    """Of the shared experts' graph; `x` is what `route` calls the rows."""
    return Ports((Port(x, "float32", ("R", dim), "x"),), (Port("shared", "float32", ("R", dim), "shared"),))


def read_shards(top: Fields, spec: LoopSpec, files: Container[str]) -> ExpertShards | None:
    """Take the field `shards` of a manifest that lists `files`; None where it is absent (BundleError)."""
    if top.peek("shards") is None:
        top.take("shards", None)
        return None
    fields = top.inner("shards")
    counts = fields.listed("counts")
    whole = all(type(count) is int and 1 <= count <= MOST_EXPERTS for count in counts)
    if not 1 <= len(counts) <= MOST_SHARDS or not whole or sum(counts) > MOST_EXPERTS:
        expected = f"1 to {MOST_SHARDS} numbers of experts, 1 or more each and {MOST_EXPERTS} or fewer in all"
        raise fields.fail("counts", expected, counts)
    graphs = fields.inner("graphs")
    found = {name: read_ports(graphs.inner(name), _INPUTS, _OUTPUTS) for name in graphs.names()}
    fields.done()
    entry = ExpertShards(tuple(counts), found)
    problem = _contradiction(entry, spec)
    if problem is not None:
        raise BundleError(f"{top.where}: the shards do not hold together: {problem}; export the model again")
    lacking = next((file for file in entry.files() if file not in files), None)
    if lacking is not None:
        raise BundleError(f"{top.where} has shards, but lists no {lacking}; export the model again")
    return entry


def _contradiction(entry: ExpertShards, spec: LoopSpec) -> str | None:
    graphs = entry.graphs
    if not {ROUTE, EXPERTS, REST} <= graphs.keys() <= {ROUTE, SHARED, EXPERTS, REST}:
        return f"the graphs are {', '.join(sorted(graphs))}, expected {ROUTE}, {EXPERTS}, {REST}, and {SHARED} or not"
    if STEP not in spec.graphs:
        return f"the spec has no {STEP}, which they are the parts of"
    try:
        rows, index = graphs[ROUTE].of("x"), graphs[ROUTE].of("expert_index")
        dim, chosen = rows.dims[-1], index.dims[-1]
    except (KeyError, IndexError):
        return f"{ROUTE} gives no rows, or no choice of experts"
    if not isinstance(dim, int) or not isinstance(chosen, int) or not 1 <= chosen <= sum(entry.counts):
        return f"{ROUTE} gives {rows} and {index}"
    want = {
        EXPERTS: expert_ports(dim),
        SHARED: shared_ports(dim, rows.name),
    }
    for name in graphs.keys() & want.keys():
        if graphs[name] != want[name]:
            return f"the ports of {name} are others than those of rows of {dim}"
    passed = {port.name: port for port in graphs[ROUTE].outputs if port.role in _PASSED}
    passed |= {port.name: port for port in graphs.get(SHARED, Ports((), ())).outputs}
    parts = Port("parts", "float32", ("R", chosen, dim), "parts")
    step, reads = spec.graphs[STEP], (*graphs[ROUTE].inputs, *graphs[REST].inputs)
    for port in (*graphs[REST].inputs, *graphs[ROUTE].inputs):
        if port not in (*step.inputs, parts) and passed.get(port.name) != port:
            return f"{REST} or {ROUTE} reads {port}, which nothing gives"
    for port in (*step.inputs, parts):
        if port not in reads:
            return f"nothing reads {port}"
    gives = (*graphs[ROUTE].outputs, *graphs[REST].outputs)
    missing = next((port for port in step.outputs if port not in gives), None)
    return None if missing is None else f"nothing gives {missing}"


def _plain(port: Port) -> dict[str, Any]:
    return asdict(port) | {"dims": list(port.dims)}
