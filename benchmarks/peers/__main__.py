"""The whole comparison, both models in one run: `python -m benchmarks.peers`.

Per model, on the same weights and inputs and in turns: the reference in eager PyTorch, the bundle (function bodies, CPU
kernels, captured program), the CPU kernels on the weights rounded to int8 and int4, and every peer. Writes latency.json
and latency.html into <output>/<model>.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from benchmarks import models
from benchmarks.peers import PEERS
from mythos_export.bench.report import write_report
from mythos_export.bench.run import BenchOptions, bench
from mythos_export.bench.workloads import Workload
from mythos_export.cli.bench import show
from mythos_runtime.cli.terminal import err, escape, plain_errors
from mythos_runtime.outputs import check_folder_place

RESULTS = Path("build/bench/peers")
OURS = ("bodies", "kernels", "eager")
ROUNDED = ("int8", "int4")
MODULES = {peer.partition(":")[0].rpartition(".")[2]: peer for peer in PEERS} | dict.fromkeys(ROUNDED, "")
WORKLOADS = {
    "hops": (Workload("decode", 1, 100, 1, 10), Workload("prefill", 100, 0, 1, 10)),
    "wide": (Workload("decode", 1, 128, 1, 8), Workload("decode", 1, 1000, 1, 8), Workload("prefill", 128, 0, 1, 8)),
}


@click.command(help=__doc__)
@click.option("--models", "names", default=",".join(models.NAMES), show_default=True)
@click.option("--only", help=f"Some of: {','.join(MODULES)}.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--turn", type=float, default=0.3, show_default=True, help="Seconds for a workload, peer and round.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the reports.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep checkpoints and bundles here, and reuse them.")
def main(
    names: str, only: str | None, threads: int, rounds: int, turn: float, output: Path, folder: Path | None
) -> None:
    documents = {}
    with plain_errors(), tempfile.TemporaryDirectory() as temporary, err.status("") as status:
        kept = list(MODULES) if only is None else models.chosen(only, list(MODULES), "peer")
        peers = [peer for module, peer in MODULES.items() if module in kept and peer]
        rounded = [precision for precision in ROUNDED if precision in kept]
        for name in models.named(names):
            check_folder_place(output / name, "-o")
            status.update(f"{name}: export")
            kept_in = folder or Path(temporary)
            source, made = models.bundle(name, kept_in)

            def step(text: str, part: float | None = None, /, model: str = name) -> None:
                status.update(escape(f"{model}: {text}"))

            options = BenchOptions(
                threads=threads,
                rounds=rounds,
                turn_seconds=turn,
                backends=(*peers[:1], *OURS, *peers[1:]),
                workloads=WORKLOADS[name],
                ids=models.ids_of(name),
                checkpoint=source,
                rounded=tuple(models.bundle(name, kept_in, precision)[1] for precision in rounded),
                command=f"python -m benchmarks.peers --threads {threads} --rounds {rounds} --turn {turn}",
            )
            documents[name] = bench(made, options, step)
            write_report(documents[name], output / name)
    for document in documents.values():
        show(document)
    print(json.dumps(documents))


if __name__ == "__main__":
    main()
