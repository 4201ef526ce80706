"""What the Triton kernels use of a GPU, as compiled without one: `python -m benchmarks.triton_kernels`.

Every kernel of every variant of OpenMythos, and of the 512-wide model of `benchmarks.models` with both attentions, in
every precision for every architecture. Registers are a thread's, of 255; shared memory is a block's, at its launch. A
kernel that spills, or needs more shared memory than a block has, is refused, here and in an export. Writes the table as
JSON and as Markdown, and prints the JSON document as its last line. No kernel is executed.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.models import WIDE
from mythos_export.errors import KernelResourceError
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import PRECISIONS, KernelSpec
from mythos_export.kernels.norm.plan import plans as norm_plans
from mythos_export.kernels.triton_build import ARCHITECTURES, compiler, kernels_for
from mythos_model import MythosConfig
from mythos_model.families.openmythos.config import VARIANTS
from mythos_runtime.manifest import NOT_EXECUTED

RESULT = Path(__file__).parent / "results" / "triton_kernels.json"
MODELS: dict[str, MythosConfig] = {
    "512": WIDE,
    "512, GQA": dataclasses.replace(WIDE, attn_type="gqa", n_kv_heads=2),
    **VARIANTS,
}
USED = ("registers", "shared_bytes")


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
        return moe, act, OperatorCall("gqa_attention", {"kv_heads": c.n_kv_heads}, {"q": q})
    latent: dict[str, tuple[int | None, ...]] = {
        "q_nope": (None, None, c.n_heads, c.qk_nope_head_dim),
        "q_rope": (None, None, c.n_heads, c.qk_rope_head_dim),
        "kv_up": (None, c.kv_lora_rank),
    }
    return moe, act, OperatorCall("mla_attention", {"v_head_dim": c.v_head_dim}, latent)


def norms(config: MythosConfig, precision: str) -> list[KernelSpec]:
    """Of the loop's state, which is float32 at any precision, and of what is in the model's own."""
    given = dict.fromkeys(("fp32", precision))
    return [spec for wide in given for plan in norm_plans(config.dim, wide, precision, True) for spec in plan.launches]


def main() -> None:
    """Compile, tabulate."""
    needed = {
        (model, precision): kernels_for(calls(config), precision) + norms(config, precision)
        for model, config in MODELS.items()
        for precision in PRECISIONS
    }
    specs = {spec.name: spec for found in needed.values() for spec in found}
    kernels, tools = _compiled(specs.values())
    models = {
        model: [
            _part(spec) | {"name": spec.name}
            for precision in PRECISIONS
            for spec in needed[model, precision]
            if spec.precision == precision  # halting is float32 at every precision
        ]
        for model in MODELS
    }
    document = {"kernels": kernels, "models": models, "tools": tools, "state": NOT_EXECUTED}
    document["command"] = "python -m benchmarks.triton_kernels"
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(_markdown(document), encoding="utf-8")
    print(json.dumps(document))


def _compiled(specs: Iterable[KernelSpec]) -> tuple[dict[str, Any], dict[str, str]]:
    """By name: threads, and by architecture what the kernel uses, or why it is refused there; and the tools."""
    kernels: dict[str, Any] = {}
    tools: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, compiler() as worker:
        for spec in track(list(specs), "compile", console=Console(stderr=True)):
            found: dict[str, Any] = {}
            for architecture in ARCHITECTURES:
                try:
                    made = worker.ask("compile", kernels=[spec.to_json()], architectures=[architecture], folder=folder)
                except KernelResourceError as error:
                    found[f"sm_{architecture}"] = {"refused": str(error)}
                    continue
                tools = made["tools"]
                (binary,) = made["kernels"][0]["binaries"]
                found[f"sm_{architecture}"] = {key: binary[key] for key in USED}
            kernels[spec.name] = {"threads": 32 * spec.num_warps, "architectures": found}
    return kernels, tools


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
        models = list(document["models"])
        lines += ["", f"## {precision}", "", f"| kernel | {' | '.join(models)} |", f"|---|{'---|' * len(models)}"]
        table: dict[str, dict[str, str]] = {}
        for model, parts in document["models"].items():
            for part in parts:
                if part["precision"] == precision:
                    table.setdefault(part["kernel"], {})[model] = _cell(document["kernels"][part["name"]])
        lines += [f"| {kernel} | {' | '.join(row.get(m, '') for m in models)} |" for kernel, row in table.items()]
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
