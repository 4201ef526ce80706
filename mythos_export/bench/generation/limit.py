"""What a schedule's calls must take at least: their bytes at the reading rate, or their multiplications at that of a
large product, whichever is more. Cache entries are not counted; they are few beside the weights at these lengths."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mythos_export.bench.limits import reading_rate
from mythos_export.bench.model_cost import Cost, GraphCost
from mythos_export.bench.workloads import Workload
from mythos_runtime.row_ports import GRAPHS


class CallLimit:
    """Seconds that a call of a row graph takes at least."""

    def __init__(self, bundle: Path, rates: dict[str, Any]) -> None:
        self._graphs = {name: GraphCost(bundle / f"{name}.onnx") for name in GRAPHS}
        self._flops = float(rates["product"]["flops_per_second"])
        # A token goes through all three, so that what one leaves in the caches the next ones push out.
        self._read = reading_rate(rates, sum(self.cost(name, 1).working_set for name in GRAPHS))

    def cost(self, graph: str, rows: int) -> Cost:
        return self._graphs[graph].fixed(Workload("decode", rows, 0, 1, None))

    def seconds(self, calls: Iterable[tuple[str, int]]) -> float:
        """Of calls (graph, rows)."""

        @cache
        def one(graph: str, rows: int) -> float:
            cost = self.cost(graph, rows)
            return max(cost.bytes / self._read, cost.flops / self._flops)

        return sum(one(graph, rows) for graph, rows in calls)
