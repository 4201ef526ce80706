"""`mythos bench` of the two models, whole matrix: `python -m benchmarks.latency`, into build/bench/latency/."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from benchmarks import models
from mythos_export.bench.report import write_report
from mythos_export.bench.run import BenchOptions, bench
from mythos_export.cli.bench import show
from mythos_runtime.cli.terminal import err, escape, plain_errors
from mythos_runtime.outputs import check_folder_place

RESULTS = Path("build/bench/latency")


@click.command(help=__doc__)
@click.option("--models", "names", default=",".join(models.NAMES), show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--quick", is_flag=True, help="Batch 1 only, at the trained depth and with halting.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the reports.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep checkpoints and bundles here, and reuse them.")
def main(names: str, threads: int, rounds: int, quick: bool, output: Path, folder: Path | None) -> None:
    lines = []
    with plain_errors(), tempfile.TemporaryDirectory() as temporary, err.status("") as status:
        for name in models.named(names):
            check_folder_place(output / name, "-o")
            status.update(f"{name}: export")
            _, made = models.bundle(name, folder or Path(temporary))
            command = f"python -m benchmarks.latency --threads {threads} --rounds {rounds}" + " --quick" * quick
            options = BenchOptions(
                threads=threads, rounds=rounds, quick=quick, ids=models.ids_of(name), command=command
            )
            document = bench(made, options, lambda text, part=None, name=name: status.update(escape(f"{name}: {text}")))
            write_report(document, output / name)
            show(document)
            lines.append(document)
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
