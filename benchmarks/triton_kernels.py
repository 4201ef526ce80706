"""What the Triton kernels use of a GPU, as compiled without one: `python -m benchmarks.triton_kernels`.

Every kernel of every variant of OpenMythos, and of the 512-wide model of `benchmarks.models` with both attentions, in
every precision for every architecture; over rounded weights those of the 1b, fp8 from SM 89 on; with int8 caches, which
go with float32, those that the caches change. Registers are a thread's, of 255; shared memory is a block's, at its
launch. A kernel that spills, or needs more shared memory than a block has, is refused, here and in an export. Writes
the table as JSON and as Markdown, and prints the JSON document as its last line. No kernel is executed.

What it takes is written as it goes: a kernel that has not changed since the last run is not compiled again, and a run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton
from rich.console import Console
from rich.progress import track

from benchmarks.models import WIDE
from mythos_export.errors import KernelResourceError
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import LEAST_SM, PRECISIONS, KernelSpec
from mythos_export.kernels.norm.plan import plans as norm_plans
from mythos_export.kernels.rotary.plan import plans as rotary_plans
from mythos_export.kernels.tail.plan import plans as tail_plans
from mythos_export.kernels.triton_build import ARCHITECTURES, compiler, kernels_for
from mythos_export.kernels.triton_run import load_kernel
from mythos_model import MythosConfig
from mythos_model.cache_lines import SCALE_BYTES
from mythos_model.families.openmythos.config import VARIANTS
from mythos_model.formats import FORMATS, PLAIN
from mythos_runtime.manifest import NOT_EXECUTED
from mythos_runtime.row_ports import PAGE

RESULT = Path(__file__).parent / "results" / "triton_kernels.json"
MODELS: dict[str, MythosConfig] = {
    "512": WIDE,
    "512 GQA": dataclasses.replace(WIDE, attn_type="gqa", n_kv_heads=2),
    **VARIANTS,
}
USED = ("registers", "shared_bytes")
INT8_CACHE = " int8 cache"
"""Behind the name of a model: the kernels that `--cache int8` brings to it."""
SERVED = tuple(name for name, form in FORMATS.items() if name != PLAIN and not form.activations)
_SAVED = 10  # kernels between two savings


def calls(config: MythosConfig) -> tuple[OperatorCall, ...]:
    """The calls of a model that have kernels, as its graph would state them."""
    c = config
    shapes: dict[str, tuple[int | None, ...]] = {
        "expert_index": (None, None, c.n_experts_per_tok),
        "routed_down": (c.n_experts, c.dim, c.expert_dim),
        "shared_down": (c.dim, c.shared_ffn_dim),
    }
    moe = OperatorCall("moe", shapes=shapes)
    act = OperatorCall("act_halting", shapes={"weight": (1, c.dim)})
    if c.attn_type == "gqa":
        q = (None, None, c.n_heads, c.head_dim)
        kv = {"kv_heads": c.n_kv_heads}
        return (
            moe,
            act,
            OperatorCall("gqa_attention", kv, {"q": q}),
            OperatorCall("paged_gqa_attention", kv, {"q": q[1:]}),
        )
    latent: dict[str, tuple[int | None, ...]] = {
        "q_nope": (None, None, c.n_heads, c.qk_nope_head_dim),
        "q_rope": (None, None, c.n_heads, c.qk_rope_head_dim),
        "kv_up": (None, c.kv_lora_rank),
    }
    rows = latent | {name: latent[name][1:] for name in ("q_nope", "q_rope")}  # packed, in the engine's graphs
    v = {"v_head_dim": c.v_head_dim}
    return moe, act, OperatorCall("mla_attention", v, latent), OperatorCall("paged_mla_attention", v, rows)


def over_int8_pages(config: MythosConfig) -> tuple[OperatorCall, ...]:
    """The calls that int8 caches change: the attention over pages, and the rounding of each part of a line."""
    c = config
    *_, attention = calls(config)
    parts = (c.head_dim,) * (2 * c.n_kv_heads) if c.attn_type == "gqa" else (c.kv_lora_rank, c.qk_rope_head_dim)
    width = sum(parts)
    shapes = {"entry": (None, width), "cache": (None, PAGE, width + SCALE_BYTES * len(parts))}
    paged = dataclasses.replace(attention, shapes={**attention.shapes, **shapes})
    return paged, *(OperatorCall("rounded_line", {"width": width}) for width in dict.fromkeys(parts))


def others(config: MythosConfig, precision: str) -> list[KernelSpec]:
    """What no graph names: norms, of the loop's state, which is float32 at any precision, and of what is in the model's
    own; rotations of MLA's queries and keys, or of all heads; and what ends an iteration."""
    given = dict.fromkeys(("fp32", precision))
    norms = [spec for wide in given for plan in norm_plans(config.dim, wide, precision, True) for spec in plan.launches]
    c, latent = config, config.attn_type == "mla"
    pairs = (c.qk_rope_head_dim if latent else c.head_dim) // 2
    rotations = [
        plan for heads in (c.n_heads, 1 if latent else c.n_kv_heads) for plan in rotary_plans(heads, pairs, precision)
    ]
    ends = tail_plans(c.dim, c.lora_rank, precision)
    return [*norms, *(spec for plan in (*rotations, *ends) for spec in plan.launches)]


def rounded(config: MythosConfig, form: str) -> tuple[OperatorCall, ...]:
    """The calls of a model over weights in a format, as its graph would state them: experts, and one square product."""
    c, format = config, FORMATS[form]

    def packed(rows: int, inputs: int) -> tuple[int, ...]:
        weight = format.pack(torch.empty(rows, inputs, device="meta")).weight
        return tuple(weight.shape)

    width, shared = (-(-units // format.tile) * format.tile for units in (c.expert_dim, c.shared_ffn_dim))
    shapes: dict[str, tuple[int | None, ...]] = {
        "x": (None, None, c.dim),
        "expert_index": (None, None, c.n_experts_per_tok),
        "routed_gate_up": (c.n_experts, *packed(2 * width, c.dim)),
        "routed_down": (c.n_experts, *packed(c.dim, width)),
        "shared_gate_up": packed(2 * shared, c.dim),
        "shared_down": packed(c.dim, shared),
    }
    square = {"x": (None, None, c.dim), "weight": packed(c.dim, c.dim)}
    return (
        OperatorCall("moe", {"format": form}, shapes),
        OperatorCall("linear", {"format": form, "rows": c.dim}, square),
    )


def main() -> None:
    """Compile, tabulate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton_kernels", description=__doc__)
    every = [*MODELS, *(f"1b {form}" for form in SERVED), *(f"{model}{INT8_CACHE}" for model in MODELS)]
    parser.add_argument("--models", default=",".join(every), help=f"of {', '.join(every)}; default: all")
    chosen = parser.parse_args().models
    needed = {(model, precision): _needed(model, precision) for model in chosen.split(",") for precision in PRECISIONS}
    specs = {spec.name: spec for found in needed.values() for spec in found}
    kernels, tools = _compiled(list(specs.values()))
    models = {
        model: [
            _part(spec) | {"name": spec.name}
            for precision in PRECISIONS
            for spec in needed[model, precision]
            if spec.precision == precision  # halting is float32 at every precision
        ]
        for model in dict.fromkeys(model for model, _ in needed)
    }
    document: dict[str, Any] = {"kernels": kernels, "models": models, "tools": tools, "state": NOT_EXECUTED}
    document["command"] = "python -m benchmarks.triton_kernels"
    if chosen != parser.get_default("models"):
        document["command"] += f" --models '{chosen}'"
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(_markdown(document), encoding="utf-8")
    print(json.dumps(document))


def _needed(model: str, precision: str) -> list[KernelSpec]:
    if model.endswith(INT8_CACHE):
        config = MODELS[model.removesuffix(INT8_CACHE)]
        return kernels_for(over_int8_pages(config), precision) if precision == "fp32" else []
    name, _, form = model.partition(" ")
    if form in SERVED:
        return kernels_for(rounded(MODELS[name], form), precision)
    return kernels_for(calls(MODELS[model]), precision) + others(MODELS[model], precision)


def _compiled(specs: Sequence[KernelSpec]) -> tuple[dict[str, Any], dict[str, str]]:
    """By name: threads, and by architecture what the kernel uses, or why it is refused there; and the tools."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    known, tools = before.get("kernels", {}), before.get("tools", {})
    known = known if isinstance(known, dict) else {}
    kernels: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, compiler() as worker:
        for number, spec in enumerate(track(specs, "compile", console=Console(stderr=True))):
            made_of = _made_of(spec)
            if known.get(spec.name, {}).get("made_of") == made_of:
                kernels[spec.name] = known[spec.name]
                continue
            found: dict[str, Any] = {}
            for architecture in _architectures(spec):
                try:
                    made = worker.ask("compile", kernels=[spec.to_json()], architectures=[architecture], folder=folder)
                except KernelResourceError as error:
                    found[f"sm_{architecture}"] = {"refused": str(error)}
                    continue
                tools = made["tools"]
                (binary,) = made["kernels"][0]["binaries"]
                found[f"sm_{architecture}"] = {key: binary[key] for key in USED}
            kernels[spec.name] = {"threads": 32 * spec.num_warps, "made_of": made_of, "architectures": found}
            if number % _SAVED == 0:
                RESULT.write_text(json.dumps({"kernels": known | kernels, "tools": tools}, indent=1), encoding="utf-8")
    return kernels, tools


def _architectures(spec: KernelSpec) -> list[int]:
    """Those that have instructions for the numbers that its weights are stored as."""
    least = next((sm for form, sm in LEAST_SM.items() if spec.name.endswith(f"-{form}")), 0)
    return [architecture for architecture in ARCHITECTURES if architecture >= least]


def _made_of(spec: KernelSpec) -> str:
    """What the result depends on: the kernel's source and all it calls, its constants, the compiler."""
    parts = [load_kernel(spec.source).cache_key, spec.to_json(), triton.__version__, ARCHITECTURES]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _part(spec: KernelSpec) -> dict[str, str]:
    """Which kernel of its operator it is, whatever the model's sizes."""
    return {"kernel": spec.name.partition(f"_{spec.precision}")[0], "precision": spec.precision}


def _markdown(document: dict[str, Any]) -> str:
    refused = [name for name, kernel in document["kernels"].items() if _refusals(kernel)]
    names = ", ".join(f"sm_{architecture}" for architecture in ARCHITECTURES)
    lines = [
        "# Triton kernels: registers of a thread, shared memory of a block",
        "",
        f"The most over {names}; triton {document['tools']['triton']}, without a GPU; {document['state']}. Of "
        f"{len(document['kernels'])} kernels {len(refused)} are refused on some architecture, the others spill nothing "
        f"anywhere. `{document['command']}`",
    ]
    for precision in PRECISIONS:
        models = [
            model
            for model, parts in document["models"].items()
            if any(part["precision"] == precision for part in parts)
        ]
        lines += ["", f"## {precision}", "", f"| kernel | {' | '.join(models)} |", f"|---|{'---|' * len(models)}"]
        table: dict[str, dict[str, list[str]]] = {}
        for model in models:
            for part in document["models"][model]:
                if part["precision"] == precision:
                    cells = table.setdefault(part["kernel"], {}).setdefault(model, [])
                    cells.append(_cell(document["kernels"][part["name"]]))
        for kernel, row in table.items():  # of several sizes in a model, such as the parts of a line: each of them
            cells = ["; ".join(dict.fromkeys(row.get(model, []))) for model in models]
            lines.append(f"| {kernel} | {' | '.join(cells)} |")
    if refused:
        lines += ["", "## Refused", ""]
        for name in refused:
            reasons = dict.fromkeys(_refusals(document["kernels"][name]).values())
            lines += [f"- {reason.partition('. ')[0]}" for reason in reasons]
    return "\n".join(lines) + "\n"


def _refusals(kernel: dict[str, Any]) -> dict[str, str]:
    return {name: use["refused"] for name, use in kernel["architectures"].items() if "refused" in use}


def _cell(kernel: dict[str, Any]) -> str:
    fine = [use for use in kernel["architectures"].values() if "refused" not in use]
    text = ", ".join(name.removeprefix("sm_") for name in _refusals(kernel))
    if not fine:
        return f"refused ({text})"
    most = f"{max(use['registers'] for use in fine)}, {max(use['shared_bytes'] for use in fine) / 1024:.1f} KB"
    return f"{most}; refused on {text}" if text else most


if __name__ == "__main__":
    main()
