"""The papers of a bundle for people: its model card, `card.md`, and the page that leads to its reports.

Everything in the card is read from the manifest and the outcome of the verification; only the licence is looked for
beside the weights, and where nothing says it, the card says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mythos_export.package import Bundle
from mythos_export.report import write_page
from mythos_export.verify import Parity
from mythos_runtime.manifest import NOT_EXECUTED, NOT_VERIFIED, TWIN_VERIFIED, VERIFIED, Manifest
from mythos_runtime.row_ports import MOST_LOOPS

CARD, INDEX = "card.md", "index.html"
_MOST_BYTES = 1 << 16  # of a README that a licence is looked for in
_LICENCE = re.compile(r"^license:[ \t]*([\w.+-]{1,64})[ \t]*$", re.MULTILINE)
_STATES = {
    VERIFIED: "executed on the exporting machine, and compared with the model in float64 in every iteration",
    TWIN_VERIFIED: "a smaller model on the same weights was executed and compared; of the model itself every weight, "
    "and a few cases",
    NOT_VERIFIED: "nothing was compared with the model yet; `mythos verify BUNDLE --against CHECKPOINT` does it",
    NOT_EXECUTED: "nothing on the exporting machine could run it",
}
_PRECISIONS = {
    "fp32": "float32",
    "fp16": "float16; the loop's state, halting, router and sums in float32",
    "int8": "matrices rounded to int8 in blocks of 32 with a float16 scale each; the rest float32",
    "int4": "matrices rounded to int4 in blocks of 32 with a float16 scale each; the rest float32",
    "fp8": "matrices rounded to float8 (e4m3) with a float16 scale for each row; the rest float32",
    "int8a8": "as int8, and what these matrices are multiplied by is rounded to int8 in blocks of 32",
    "int4a8": "as int4, and what these matrices are multiplied by is rounded to int8 in blocks of 32",
    "mixed": "a format for each group of matrices; the rest float32",
}


def find_licence(folder: Path) -> str | None:
    """What the files beside the weights say: the `license` of README.md's header, or else that a file is there."""
    readme = folder / "README.md"
    if readme.is_file():
        with readme.open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
        header = text[3:].partition("\n---")[0] if text.startswith("---") else ""
        found = _LICENCE.search(header)
        if found is not None:
            return found[1]
    file = next((name for name in ("LICENSE", "LICENCE") if (folder / name).is_file()), None)
    return file and f"see {file} beside the weights"


def with_card(bundle: Bundle, licence: str | None, parity: Parity | None) -> Bundle:
    """The bundle with its card, written anew where there is one."""
    (bundle.folder / CARD).write_text("\n".join(_lines(bundle.manifest, licence, parity)) + "\n", encoding="utf-8")
    files = {name: entry for name, entry in bundle.manifest.files.items() if name != CARD}
    return replace(bundle, manifest=replace(bundle.manifest, files=files)).grown()


def write_index(folder: Path, manifest: Manifest, parity: Parity) -> Path:
    """The page that leads to the reports in a bundle's folder of reports; those of `mythos bench` may
    come later, and are named without a link: the manifest holds this page to what it is now."""
    targets = [[each.name, each.state, _STATES.get(each.state, "")] for each in manifest.targets]
    return write_page(folder / INDEX, "index.html.j2", manifest=manifest, parity=parity, targets=targets)


def _lines(manifest: Manifest, licence: str | None, parity: Parity | None) -> Iterator[str]:
    spec, source = manifest.spec, manifest.source
    known = licence is not None and " " not in licence
    yield from ("---", f"license: {licence if known else 'unknown'}", "library_name: mythos-runtime")
    yield from ("pipeline_tag: text-generation", f"tags: [looped-transformer, {spec.family}]", "---", "")
    yield from (f"# {source.name}, as a bundle", "")
    yield f"A looped transformer of the family {spec.family}, compiled by mythos-export: its graph holds the loop, and"
    yield "halts by itself. `mythos run`, `mythos serve` and the C++ program `mythos_run` run it, without PyTorch."
    yield from ("", "## From where", "", "| | |", "|---|---|", f"| checkpoint | {source.name} ({source.format}) |")
    yield f"| its SHA-256 | {source.sha256 or 'none: the weights came from no file'} |"
    yield f"| exported | {manifest.created}, with {', '.join(f'{k} {v}' for k, v in manifest.tool_versions.items())} |"
    yield f"| licence | {licence or 'not stated in the files beside the weights'} |"
    yield from ("", "## What it is", "", "| | |", "|---|---|")
    yield f"| precision | {manifest.precision}: {_PRECISIONS.get(manifest.precision, manifest.precision)} |"
    yield from (f"| {group} | {form}: {_PRECISIONS[form]} |" for group, form in manifest.formats.items())
    if spec.int8_cache:
        yield "| caches | lines rounded to int8, a bfloat16 scale for each vector; engines keep them so |"
    yield f"| ids | 0 to {spec.vocab_size - 1} |"
    yield f"| longest sequence | {spec.max_seq_len}, of these at most {spec.max_output_tokens} generated at once |"
    yield f"| loops | trained with {spec.trained_loops}; more or fewer may be asked for, up to {MOST_LOOPS} |"
    yield f"| exit rule | {spec.exit.name}: {spec.exit.meaning} |"
    yield from (f"| {knob.name} | {knob.default:g} by default: {knob.meaning} |" for knob in spec.exit.knobs)
    yield f"| text | {'ids only' if manifest.tokenizer is None else manifest.tokenizer.kind} |"
    yield from ("", "## What was verified", "", "| target | state | meaning |", "|---|---|---|")
    yield from (f"| {each.name} | {each.state} | {_STATES.get(each.state, '')} |" for each in manifest.targets)
    if parity is not None:
        yield from ("", parity.verdict(), "", "The stages:", "", "| stage | state |", "|---|---|")
        yield from (f"| {stage.name} | {stage.state} |" for stage in (*parity.stages, *parity.whole))
    yield from ("", "## Limits", "")
    yield "- Verified means that the bundle computes what the checkpoint does. Of the model's quality it says nothing."
    if manifest.precision.startswith(("int8", "int4", "fp8", "mixed")) and parity is not None:
        yield "- It was compared with the rounded model. What rounding costs in quality only your data can tell."
    elif spec.int8_cache and parity is not None:
        yield "- It was compared with the model that rounds its caches. What that costs only your data can tell."
    unrun = [target.name for target in manifest.targets if target.state == NOT_EXECUTED]
    if unrun:
        yield f"- Nothing on the machine of the export could run what was built for {' and '.join(unrun)}."
    if manifest.links is not None:
        path = manifest.links.files[0].path
        yield f"- {manifest.links.bytes} bytes of its weights are not in it, but in the checkpoint ({path})."
    yield "- The graph is a program: run it only if you trust where it comes from."
    yield from ("", "## Files", "", "| file | bytes | SHA-256 |", "|---|---|---|")
    files = ((name, entry) for name, entry in manifest.files.items() if name != CARD)
    yield from (f"| {name} | {entry.bytes} | {entry.sha256} |" for name, entry in files)
