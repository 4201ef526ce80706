"""What a part is told, and how it times."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.record import Record


@dataclass
class Run:
    """One part's run.

    Attributes:
        dry: no GPU: on the CPU, at small sizes.
        select: the one of a part's pieces that this process does; empty: all of them.
        examples: cases drawn of each kind; 0: the part's own number.
        limit: seconds until the part is stopped.
        bundles: folder of bundles.
        bandwidth, flops: what the GPU was seen to read and to multiply (bf16) in a second.
    """

    record: Record
    dry: bool
    select: str
    examples: int
    limit: float
    bundles: Path
    bandwidth: float
    flops: float

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Run:
        record = Record(Path(arguments.save) if arguments.save else None)
        a = arguments
        return cls(record, a.dry_run, a.select, a.examples, a.limit, Path(a.bundles), a.bandwidth, a.flops)

    @cached_property
    def started(self) -> float:
        return time.perf_counter()

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def precisions(self) -> dict[str, torch.dtype]:
        """Triton's interpreter multiplies bfloat16 wrongly."""
        every = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        return {name: dtype for name, dtype in every.items() if name != "bf16" or not self.dry}

    def synchronize(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], times: int = 15) -> float:
        """Median of a call, by CUDA's events; in a dry run, of one call, by the clock."""
        if self.dry:
            begun = time.perf_counter()
            call()
            return time.perf_counter() - begun
        for _ in range(3):
            call()
        self.synchronize()
        found = []
        for _ in range(times):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / 1e3)
        return float(statistics.median(found))

    def graphed(self, call: Callable[[], Any], calls: int = 4) -> float | None:
        """Seconds of a call inside a CUDA graph of several: what the GPU needs, without launches from Python."""
        if self.dry:
            return None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        return self.seconds(graph.replay) / calls

    def contest(self, contestants: dict[str, Callable[[], Any]], limit: float) -> dict[str, Any]:
        """Microseconds of each, from Python and in a graph, and the share of the limit (seconds) that was reached."""
        row: dict[str, Any] = {"limit_us": round(limit * 1e6, 2)}
        for name, call in contestants.items():
            try:
                row[f"{name}_us"] = round(self.seconds(call) * 1e6, 1)
                inside = self.graphed(call)
            except Exception as error:  # one contestant less
                row[f"{name}_error"] = f"{type(error).__name__}: {str(error)[:200]}"
                continue
            if inside is not None:
                row[f"{name}_graph_us"] = round(inside * 1e6, 1)
                row[f"{name}_of_limit"] = round(limit / inside, 3)
        return row


LIMITS = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 4e-2}
"""Relative distance from float64 that a kernel may have: the tests', and eight times float16's for bfloat16."""


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 distance, of results of order 1: relative to 0.1 at least, as the tests have it."""
    got, expected = got.double(), expected.double()
    size = max(float(expected.norm()), 0.1 * got.numel() ** 0.5)
    return float((got - expected).norm()) / size if got.numel() else 0.0
