"""The command lines `mythos-export` and `mythos`.

Exit codes: 0 done and verified; 1 the result is wrong; 2 the request or the input is wrong; 3 this machine lacks
something needed. Progress and errors go to stderr. With --json the last line of stdout is one JSON document.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mythos_export.errors import ExportError
from mythos_model.errors import ModelError
from mythos_runtime.errors import RuntimeBundleError
from mythos_runtime.manifest import NOT_EXECUTED, Manifest, read_manifest
from mythos_runtime.ort import find_op_library

EXPECTED = (ExportError, ModelError, RuntimeBundleError)
out, err = Console(), Console(stderr=True)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """A user's mistake is one line and an exit code, never a traceback."""
    from mythos_export.targets.tensorrt_build import TensorRTBuildError

    try:
        yield
    except (*EXPECTED, TensorRTBuildError) as error:
        err.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted; nothing was written")
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


@contextlib.contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Shows the step that runs, and leaves each finished one with its seconds."""
    running, since = "", time.perf_counter()

    def finish() -> None:
        if running:
            seconds = time.perf_counter() - since
            err.print(f"  [green]✓[/] {_escape(running)} [dim]{seconds:.1f} s[/]", highlight=False)

    with err.status("") as status:

        def step(name: str) -> None:
            nonlocal running, since
            if not name.startswith("TensorRT: "):  # TensorRT's own phases only change the line below
                finish()
                running, since = name, time.perf_counter()
            status.update(_escape(name))

        yield step
        finish()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--target", type=click.Choice(["onnx", "tensorrt"]), default="onnx", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's folder [default: NAME-TARGET].")
@click.option("--config", type=click.Path(path_type=Path), help="JSON with the model's fields, or some of them.")
@click.option("--variant", help="A named variant: 1b, 3b, 10b, 50b, 100b, 500b, 1t.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16"]), help="Default: onnx fp32, tensorrt fp16.")
@click.option("--sm", help="tensorrt: compute capabilities, such as 86,89 [default: 80,86,89,120].")
@click.option("--batch", help="tensorrt: range min:opt:max.")
@click.option("--tokens", help="tensorrt: range of new tokens, min:opt:max.")
@click.option("--context", help="tensorrt: range of cached tokens, min:opt:max.")
@click.option("--tokenizer", help="'bytes', or a tokenizer.json to put into the bundle.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def export_command(checkpoint: Path, target: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Export an OpenMythos CHECKPOINT as a verified bundle with its recurrent loop intact."""
    with _plain_errors():
        from mythos_export import export  # imports torch: seconds that --help need not spend

        destination = output or Path(f"{checkpoint.stem or checkpoint.name}-{target}")
        with _steps() as step:
            exported = export(checkpoint, destination, target, progress=step, **options)
        _show_parity(exported.parity)
        _show_bundle(exported.path, exported.manifest)
        if as_json:
            document = {
                "bundle": str(exported.path),
                "targets": {t.name: t.state for t in exported.manifest.targets},
                "precision": exported.manifest.precision,
                "parity": {k: v for k, v in exported.parity.to_json().items() if k != "cases"},
            }
            click.echo(json.dumps(document))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def mythos() -> None:
    """Work with bundles made by mythos-export."""


@mythos.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as one line of JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a BUNDLE holds, where it came from and how far it was checked."""
    with _plain_errors():
        manifest = read_manifest(bundle)
        if not as_json:
            _show_bundle(bundle, manifest)
        else:
            click.echo(json.dumps(manifest.to_json()))


@mythos.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def verify(bundle: Path, threads: int | None, as_json: bool) -> None:
    """Run the golden cases of a BUNDLE on this machine and compare with the eager model's answers."""
    with _plain_errors():
        from mythos_export.verify import verify_bundle

        manifest = read_manifest(bundle)
        with _steps() as step:
            parity = verify_bundle(bundle, manifest, step, threads)
        _show_parity(parity)
        if as_json:
            click.echo(json.dumps(parity.to_json()))
        parity.raise_unless_passed()


@mythos.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--prompt", help="Text to go on from (bundles with a tokenizer).")
@click.option("--ids", help="Token ids to go on from, such as 1,2,3.")
@click.option("--max-new-tokens", type=int, default=64, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: greedy.")
@click.option("--top-k", type=int, default=0, help="0: off.")
@click.option("--top-p", type=float, default=1.0, help="1: off.")
@click.option("--min-p", type=float, default=0.0, help="0: off.")
@click.option("--repetition-penalty", type=float, default=1.0, help="1: off.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--eos", type=int, help="Id that ends the text.")
@click.option("--max-loops", type=int, help="Default: as trained.")
@click.option("--halt-threshold", type=float, help="Default: as trained.")
@click.option("--policy", type=click.Choice(["full", "last"]), default="full", show_default=True)
@click.option("--backend", type=click.Choice(["onnxruntime", "tensorrt", "eager"]))
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def run(bundle: Path, prompt: str | None, ids: str | None, as_json: bool, **options: Any) -> None:
    """Generate with a BUNDLE: streams text where it has a tokenizer, ids otherwise."""
    with _plain_errors():
        from mythos_export.run import parse_ids, stream
        from mythos_runtime import load

        model = load(bundle, backend=options.pop("backend"), threads=options.pop("threads"))
        result = stream(model, parse_ids(model, prompt, ids), click.echo, **options)
        out.print(result.summary(), highlight=False)
        if as_json:
            click.echo(json.dumps(result.to_json()))


@mythos.command()
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def doctor(as_json: bool) -> None:
    """List what this machine can build and run, and what to install for the rest."""
    with _plain_errors():
        from mythos_export.doctor import examine

        findings = examine()
        table = Table("", "what", "found", "to get it")
        for finding in findings:
            table.add_row(
                "[green]✓[/]" if finding.works else "[yellow]–[/]", finding.what, finding.found, finding.remedy
            )
        out.print(table)
        if as_json:
            click.echo(json.dumps([finding.__dict__ for finding in findings]))


def _show_parity(parity: Any) -> None:
    table = Table("stage", "cases", "positions compared", "worst case", "error", "allowed", "")
    for stage in parity.stages:
        results = [result for result in parity.results if result.stage == stage]
        worst = parity.worst(stage)
        seen, real = sum(r.compared for r in results), sum(r.positions for r in results)
        verdict = "[green]equal[/]" if all(r.problem is None for r in results) else "[red]differs[/]"
        numbers = (f"{worst.logits_error:.1e}", f"{parity.tolerance:.1e}")
        table.add_row(stage, str(len(results)), f"{seen} of {real}", worst.case, *numbers, verdict)
    out.print(table)


def _show_bundle(path: Path, manifest: Manifest) -> None:
    config = manifest.config
    table = Table("target", "state", "files", title=f"{path}", title_justify="left")
    for target in manifest.targets:
        color = "yellow" if target.state == NOT_EXECUTED else "green"
        sizes = [f"{name} ({manifest.files[name].bytes / 1e6:.1f} MB)" for name in target.files]
        table.add_row(target.name, f"[{color}]{target.state}[/]", "\n".join(sizes))
    out.print(table)
    out.print(
        f"{config['attn_type'].upper()} with {config['n_experts']} experts, trained with {config['max_loop_iters']} "
        f"loops, {manifest.precision}; from {manifest.source.name} ({manifest.source.format}), {manifest.created}",
        highlight=False,
    )
    _show_operators(manifest)
    if any(target.state == NOT_EXECUTED for target in manifest.targets):
        out.print(
            "The graph given to TensorRT was run by ONNX Runtime and compared. "
            "But no engine was executed: that needs a GPU.",
            style="yellow",
        )


def _show_operators(manifest: Manifest) -> None:
    """What computes the operators, runner by runner; operators with the same answer share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for operator, runners in manifest.operators.items():
        for runner, choice in runners.items():
            text = choice.get("taken") or ", else ".join(choice["order"])
            passed = "".join(f" (not {name}: {why})" for name, why in choice.get("passed over", {}).items())
            rows.setdefault((runner, f"{text}{passed}"), []).append(operator)
    table = Table("operators", "in", "computed by")
    for (runner, text), operators in rows.items():
        table.add_row(", ".join(operators), runner, text)
    out.print(table)
    library = find_op_library()
    out.print(f"On this machine ONNX Runtime takes {library.name if library else 'the portable function bodies'}.")
