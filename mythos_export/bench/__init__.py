"""Latency reports: a bundle's backends, and whoever else plugs in, timed in turns and held against the machine.

    from mythos_export.bench import BenchOptions, bench, write_report

    document = bench(Path("bundle"), BenchOptions(threads=2))
    write_report(document, Path("reports"))                  # latency.json, latency.html

In the order the data flows: `workloads` (what is timed, and the inputs that all are given), `contestant` and `worker`
(a process per backend), `backends/` (one file each, the same methods), `rounds` (who is timed when), `limits` and
`model_cost` (what would be possible), `statistics`, `breakdown` and `depth_line`, `document`, `report`, `compare`.
"""

from mythos_export.bench.compare import compare
from mythos_export.bench.errors import BenchError
from mythos_export.bench.report import read_report, write_report
from mythos_export.bench.run import BenchOptions, bench
from mythos_export.bench.workloads import Workload

__all__ = ["BenchError", "BenchOptions", "Workload", "bench", "compare", "read_report", "write_report"]
