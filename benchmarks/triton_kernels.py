"""What the Triton kernels use of a GPU, as compiled without one: `python -m benchmarks.triton_kernels`.

Every kernel of the 512-wide model of `benchmarks.models`, with both attentions, in float16, for every architecture.
Registers are a thread's, of 255; shared memory is a block's, at its launch. A kernel that spills fails the build.
Writes the table as JSON and as Markdown, and prints the JSON document as its last line. No kernel is executed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.models import WIDE
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.triton_build import ARCHITECTURES, build, kernels_for

PRECISION = "fp16"
CALLS = (
    OperatorCall(
        "moe",
        shapes={
            "expert_index": (None, None, WIDE.n_experts_per_tok),
            "routed_down": (WIDE.n_experts, WIDE.dim, WIDE.expert_dim),
            "shared_down": (WIDE.dim, WIDE.shared_ffn_dim),
        },
    ),
    OperatorCall(
        "mla_attention",
        {"v_head_dim": WIDE.v_head_dim},
        {
            "q_nope": (None, None, WIDE.n_heads, WIDE.qk_nope_head_dim),
            "q_rope": (None, None, WIDE.n_heads, WIDE.qk_rope_head_dim),
            "kv_up": (None, WIDE.kv_lora_rank),
        },
    ),
    OperatorCall("gqa_attention", {"kv_heads": 2}, {"q": (None, None, WIDE.n_heads, WIDE.dim // WIDE.n_heads)}),
)
RESULT = Path(__file__).parent / "results" / "triton_kernels.json"


def main() -> None:
    """Compile, tabulate."""
    specs = kernels_for(CALLS, PRECISION)
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        manifest = build(
            specs,
            ARCHITECTURES,
            Path(folder),
            progress=lambda phase, fraction: status.update(phase),
        )
    document = {
        "kernels": [_row(kernel) for kernel in manifest["kernels"]],
        "model": "dim 512, 8 heads, MLA (latent 128 + 32) and GQA (2 kv heads of 64), 16 experts of width 256, top 2",
        "precision": PRECISION,
        "tools": manifest["tools"],
        "state": manifest["state"],
        "command": "python -m benchmarks.triton_kernels",
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(_markdown(document), encoding="utf-8")
    print(json.dumps(document))


def _row(kernel: dict[str, Any]) -> dict[str, Any]:
    keys = ("registers", "shared_bytes", "spill_store_bytes", "spill_load_bytes")
    found = {binary["architecture"]: {key: binary[key] for key in keys} for binary in kernel["binaries"]}
    return {"name": kernel["name"], "threads": kernel["threads"], "architectures": found}


def _markdown(document: dict[str, Any]) -> str:
    names = [f"sm_{architecture}" for architecture in ARCHITECTURES]
    lines = [
        "# Triton kernels: registers of a thread, shared memory of a block",
        "",
        f"{document['model']}; {document['precision']}; triton {document['tools']['triton']}, without a GPU; "
        f"{document['state']}. No kernel spills. `{document['command']}`",
        "",
        f"| kernel | threads | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for row in document["kernels"]:
        found = [row["architectures"][name] for name in names]
        cells = [f"{use['registers']}, {use['shared_bytes'] / 1024:.1f} KB" for use in found]
        lines.append(f"| {row['name']} | {row['threads']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
