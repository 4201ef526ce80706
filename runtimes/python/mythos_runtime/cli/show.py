"""Bundles as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from mythos_runtime.cli.terminal import out
from mythos_runtime.manifest import NOT_EXECUTED, NOT_VERIFIED, TWIN_VERIFIED, VERIFIED, Manifest, Target
from mythos_runtime.op_library import find_op_library, why_no_op_library
from mythos_runtime.spec import LoopSpec
from mythos_runtime.tokenizer_entry import TokenizerEntry


def show_bundle(path: Path, manifest: Manifest) -> None:
    spec = manifest.spec
    table = Table("target", "state", "files", title=f"{path}", title_justify="left")
    for target in manifest.targets:
        color = {VERIFIED: "green", NOT_VERIFIED: "red"}.get(target.state, "yellow")
        table.add_row(target.name, f"[{color}]{target.state}[/]", "\n".join(_sizes(target.files, manifest)))
    out.print(table)
    out.print(
        f"{spec.family}, trained with {spec.trained_loops} loops, {manifest.precision}; from {manifest.source.name} "
        f"({manifest.source.format}), {manifest.created}",
        highlight=False,
    )
    _show_spec(spec)
    if manifest.formats:
        formats = ", ".join(f"{group} {form}" for group, form in manifest.formats.items())
        out.print(f"Formats of its matrices: {formats}; the rest float32.", markup=False, highlight=False)
    if manifest.shards is not None:
        counts = ", ".join(map(str, manifest.shards.counts))
        out.print(
            f"Its experts are in {len(manifest.shards.counts)} shards, a process each ({counts}).", highlight=False
        )
    if manifest.links is not None:
        places = ", ".join(file.path for file in manifest.links.files)
        text = f"{manifest.links.bytes / 1e9:.3f} GB of its weights are in files that are not part of it: {places}"
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    if manifest.tokenizer is not None:
        _show_text(manifest.tokenizer)
    _show_operators(manifest)
    if manifest.missing:
        gone = f"Of its files these are missing, without which it runs: {', '.join(manifest.missing)}."
        out.print(gone, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if manifest.doubt is not None:
        out.print(f"{manifest.doubt[0].upper()}{manifest.doubt[1:]}.", style="red", highlight=False)
    if any(target.state == TWIN_VERIFIED for target in manifest.targets):
        out.print(
            "The model is too large to be verified as a whole: all cases ran on a reduced twin of it, with the same "
            "weights; of the model itself every weight was compared, and a few cases.",
            style="yellow",
            highlight=False,
        )
    compared = any(target.state in (VERIFIED, TWIN_VERIFIED) for target in manifest.targets)
    for target in manifest.targets:
        if target.state == NOT_EXECUTED:
            for text in _not_executed(target, compared):
                out.print(text, style="yellow", highlight=False)


def _not_executed(target: Target, compared: bool) -> list[str]:
    """What of a target was run all the same, where the bundle was `compared` with its model, and what was not."""
    if "engines" in target.details:
        ran, never = "The graph given to TensorRT was run by ONNX Runtime and compared.", "no engine"
    elif "architectures" in target.details:
        ran, never = "The programs for PyTorch were run on the CPU and compared.", "no compiled kernel"
    else:
        return [f"What was built for {target.name} was not executed."]
    said = [f"{ran} But {never} was executed: that needs a GPU." if compared else f"Of {target.name}, {never} has run."]
    if any(engine.get("plugins") for engine in target.details.get("engines", ())):
        where = ", in the whole model's engine alone" if "row_engines" in target.details else ""
        stood = "In that comparison function bodies stood in for the plug-ins" if compared else "It has plug-ins"
        said.append(f"{stood}{where}, which have not run.")
    return said


def _show_spec(spec: LoopSpec) -> None:
    """What running the model needs to know of it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("ids", f"0 to {spec.vocab_size - 1}, up to {spec.max_seq_len} in a sequence")
    for group in spec.caches:
        kept = f"int8, {len(group.rounded)} scales" if group.rounded else group.dtype
        lines = f"{group.slots} x {group.width} {kept}"
        table.add_row("cache of a token", f"{lines} {'per loop' if group.per_loop else 'around the loop'}")
    table.add_row("a loop hands on", ", ".join(tensor.name for tensor in spec.state))
    table.add_row("exit", f"{spec.exit.name}: {spec.exit.meaning}")
    table.add_row("max_loops", f"{spec.trained_loops}, as trained, if nothing else is asked for")
    for knob in spec.exit.knobs:
        table.add_row(knob.name, f"{knob.default:g} if nothing else is asked for; {knob.meaning}")
    out.print(table)


def _show_text(entry: TokenizerEntry) -> None:
    """What becomes of text, and which file or option said so."""
    ids = ", ".join(map(str, entry.eos)) or "none"
    facts = {
        "file": ("tokenizer", entry.kind),
        "eos": ("EOS", ids),
        "bos": ("BOS", entry.bos),
        "chat_template": ("chat template", "none" if entry.chat_template is None else "yes"),
        "defaults": ("defaults", ", ".join(f"{name} {value}" for name, value in entry.defaults.items()) or "none"),
    }
    for name, (what, value) in facts.items():
        if name in entry.sources or name in ("file", "eos"):
            source = f" ({entry.sources[name]})" if name in entry.sources else ""
            out.print(f"{what}: {value}{source}", markup=False, highlight=False, soft_wrap=True)


def _sizes(files: Sequence[str], manifest: Manifest) -> list[str]:
    """One line for each file, or for a folder of many."""
    folders: dict[Path, list[str]] = {}
    for name in files:
        folders.setdefault(Path(name).parent, []).append(name)
    lines = []
    for folder, names in folders.items():
        sizes = [manifest.files[name].bytes for name in names]
        if folder.name and len(names) > 4:
            lines.append(f"{folder}/ ({len(names)} files, {_size(sum(sizes))})")
        else:
            lines += [f"{name} ({_size(size)})" for name, size in zip(names, sizes, strict=True)]
    return lines


def _size(count: int) -> str:
    """Bytes in powers of 1000."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _show_operators(manifest: Manifest) -> None:
    """What computes the operators, runner by runner; operators with the same answer share a row, and are named in it
    where they are not all."""
    rows: dict[tuple[str, str], list[str]] = {}
    for operator, runners in manifest.operators.items():
        for runner, choice in runners.items():
            text = choice.get("taken") or ", else ".join(choice["order"])
            passed = "".join(f" (not {name}: {why})" for name, why in choice.get("passed over", {}).items())
            rows.setdefault((runner, f"{text}{passed}"), []).append(operator)
    names = {operator: operator.removeprefix("mythos::") for operator in manifest.operators}
    apart = any(len(operators) < len(names) for operators in rows.values())
    table = Table("in", "computed by", *(("operators",) if apart else ()))
    for (runner, text), operators in rows.items():
        of = "all" if len(operators) == len(names) else ", ".join(names[operator] for operator in operators)
        table.add_row(runner, text, *((of,) if apart else ()))
    if names:
        out.print(f"mythos operators: {', '.join(names.values())}", markup=False, highlight=False)
        out.print(table)
    lack = why_no_op_library()
    library = find_op_library() if lack is None else None
    taken = library.name if library is not None else f"the portable function bodies ({lack})"
    out.print(f"On this machine ONNX Runtime takes {taken}.", markup=False, highlight=False)
