"""The tables of docs/performance.md that `python -m benchmarks.real_size.openmythos` measured."""

from __future__ import annotations

import statistics
from typing import Any

from mythos_export.report.format import percent, seconds

NAME = "real_size_openmythos.json"  # in benchmarks/results
SAID = {
    "reference in eager PyTorch": "reference in eager PyTorch, float32",
    "ONNX Runtime, CPU kernels": "float32",
    "ONNX Runtime, CPU kernels, int8 weights": "int8",
    "ONNX Runtime, CPU kernels, int8a8 weights": "int8, activations in int8",
    "ONNX Runtime, CPU kernels, int4 weights": "int4",
    "ONNX Runtime, CPU kernels, int4a8 weights": "int4, activations in int8",
}
THREADS = {1: "One thread", 2: "Two threads"}


def table(document: list[dict[str, Any]]) -> str:
    """For every number of threads a table: who, and every workload with its share of the limit and its ratio."""
    machine = document[0]["bench"]["machine"]
    parts = [
        f"{machine['cpu']} with {', '.join(machine['vector_instructions'])}, two cores, {machine['at'][:10]} "
        f"([all figures](../benchmarks/results/{NAME}), `python -m benchmarks.real_size.openmythos`): medians, how "
        "many times as fast as the reference, and the share of what the machine read or multiplied at best in the same "
        "minutes."
    ]
    return "\n\n".join(parts + [_threads(each) for each in document])


def _threads(measured: dict[str, Any]) -> str:
    found = measured["bench"]
    workloads = [workload["name"] for workload in found["workloads"]]
    rows = {(row["workload"], row["backend"]): row for row in found["rows"]}
    noise = "" if found["noise"]["quiet"] else f" The machine was not quiet: {'; '.join(found['noise']['reasons'])}."
    read, product = found["limits"]["read"][-1], found["limits"]["product"]
    lines = [
        f"{THREADS[measured['threads']]}; read at {read['bytes_per_second'] / 1e9:.0f} GB/s, multiplied at "
        f"{product['flops_per_second'] / 1e9:.0f} GFLOP/s in float32.{noise}",
        "",
        f"| | {' | '.join(workload.replace(', batch 1', '') for workload in workloads)} |",
        "|---|" + "---|" * len(workloads),
    ]
    for backend, said in SAID.items():
        lines.append(f"| {said} | {' | '.join(_cell(rows.get((workload, backend))) for workload in workloads)} |")
    for form, rounds in measured["llama"].items():
        times = {"decode": _median(rounds, "said"), "prefill": _median(rounds, "prompt")}
        few = min(workload["depth"] for workload in found["workloads"])
        cells = [times[w["kind"]] if w["depth"] == few else "" for w in found["workloads"]]
        lines.append(f"| llama.cpp, {form} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "failed"
    ratio = "" if row["ratio"] is None or row["ratio"] == 1 else f", {row['ratio']:.1f} times"
    share = "" if row["fraction_of_limit"] is None else f", {percent(row['fraction_of_limit'])}"
    return f"{seconds(row['median'])}{ratio}{share}"


def _median(rounds: list[dict[str, Any]], what: str) -> str:
    return seconds(statistics.median(each[what] for each in rounds) / 1e3)
