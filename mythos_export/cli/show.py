"""Bundles and comparisons as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mythos_export.cli.terminal import out
from mythos_runtime.manifest import NOT_EXECUTED, Manifest
from mythos_runtime.ort import find_op_library


def show_parity(parity: Any) -> None:
    table = Table("stage", "cases", "positions compared", "worst case", "error", "allowed", "")
    for stage in parity.stages:
        results = [result for result in parity.results if result.stage == stage]
        worst = parity.worst(stage)
        seen, real = sum(r.compared for r in results), sum(r.positions for r in results)
        verdict = "[green]equal[/]" if all(r.problem is None for r in results) else "[red]differs[/]"
        numbers = (f"{worst.logits_error:.1e}", f"{parity.tolerance:.1e}")
        table.add_row(stage, str(len(results)), f"{seen} of {real}", worst.case, *numbers, verdict)
    out.print(table)


def show_bundle(path: Path, manifest: Manifest) -> None:
    config = manifest.config
    table = Table("target", "state", "files", title=f"{path}", title_justify="left")
    for target in manifest.targets:
        color = "yellow" if target.state == NOT_EXECUTED else "green"
        table.add_row(target.name, f"[{color}]{target.state}[/]", "\n".join(_sizes(target.files, manifest)))
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
    if any(engine.get("plugins") for target in manifest.targets for engine in target.details.get("engines", ())):
        out.print("In that comparison function bodies stood in for the plug-ins, which have not run.", style="yellow")


def _sizes(files: Sequence[str], manifest: Manifest) -> list[str]:
    """One line for each file, or for a folder of many."""
    folders: dict[Path, list[str]] = {}
    for name in files:
        folders.setdefault(Path(name).parent, []).append(name)
    lines = []
    for folder, names in folders.items():
        megabytes = [manifest.files[name].bytes / 1e6 for name in names]
        if folder.name and len(names) > 4:
            lines.append(f"{folder}/ ({len(names)} files, {sum(megabytes):.1f} MB)")
        else:
            lines += [f"{name} ({size:.1f} MB)" for name, size in zip(names, megabytes, strict=True)]
    return lines


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
