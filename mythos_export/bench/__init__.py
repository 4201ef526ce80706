"""Latency reports: a bundle's backends, and whoever else plugs in, timed in turns and held against the machine.

    from mythos_export.bench.report import write_report
    from mythos_export.bench.run import BenchOptions, bench

    document = bench(Path("bundle"), BenchOptions(threads=2))
    write_report(document, Path("reports"))                  # latency.json, latency.html

In the order the data flows: `workloads` (what is timed, and the inputs that all are given), `contestant` and `worker`
(a process per backend), `backends/` (one file each, the same methods), `rounds` (who is timed when), `limits` and
`model_cost` (what would be possible), `statistics`, `breakdown` and `depth_line`, `document`, `report`, `compare`.

Nothing is imported here: a worker's memory and start are its backend's, not this package's.
"""
