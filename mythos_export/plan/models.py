"""A model by its matrices: how many weights there are, which a token reads, and how often.

Written a second time beside the families, which torch comes with; a test holds the two to each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mythos_export.errors import PlanError

# Of an embedding, a token reads a line; of what stands around the loop, all of it once; in the loop at every depth; of
# experts the chosen ones at every depth.
Place = Literal["table", "around", "loop", "expert"]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Matrices, or what is none: weights that the block-wise formats round, and those that they keep in float32."""

    name: str
    place: Place
    rounded: int
    kept: int = 0
    lines: int = 1
    """Of a table."""


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        loops: the number that it was trained with.
        around, inside: cache lines of a token around the loop, and of every loop; `width` values each.
        behind: of those around the loop, the ones behind it.
        state: bytes that the engine holds of a position that lags, in every precision: what the loop carries. 0 of a
            bundle without row graphs, which the engine does not run.
        scales: of a line, where lines are rounded to int8: one for each of its vectors.
        int8_cache: whether they are.
        experts, chosen: in the loop; 0 where there are none.
        attended: multiplications of a layer's attention, all heads, per position that is attended to.
        tied: the head reads the embedding.
        precision: of a bundle; None of a configuration.
        stored: bytes of a bundle's weights, where its precision does not tell.
    """

    name: str
    family: str
    parts: tuple[Part, ...]
    loops: int
    longest: int
    around: int
    inside: int
    width: int
    attended: int
    experts: int = 0
    chosen: int = 0
    tied: bool = False
    precision: str | None = None
    stored: int | None = None
    notes: tuple[str, ...] = field(default=())
    scales: int = 0
    int8_cache: bool = False
    state: int = 0
    behind: int = 0

    @property
    def parameters(self) -> int:
        return sum(part.rounded + part.kept for part in self.parts)

    def read(self, place: Place) -> tuple[float, float]:
        """Weights (rounded, kept) that one token reads of a place, each time that it comes there."""
        share = self.chosen / self.experts if place == "expert" and self.experts else 1.0
        found = [part for part in self.parts if part.place == place]
        if place == "table":
            return (
                sum(part.rounded / part.lines for part in found),
                sum(part.kept / part.lines for part in found),
            )
        return share * sum(part.rounded for part in found), share * sum(part.kept for part in found)

    @property
    def dim(self) -> int:
        table = next(part for part in self.parts if part.place == "table")
        return table.rounded // table.lines

    @property
    def head(self) -> int:
        """Weights of the head where it is the embedding: read once, beside what stands around the loop."""
        return sum(part.rounded for part in self.parts if part.name == "embedding") if self.tied else 0

    @property
    def active_per_loop(self) -> int:
        """Weights that a token reads in one loop."""
        return round(sum(self.read("loop")) + sum(self.read("expert")))


def variants() -> dict[str, dict[str, Any]]:
    """The named configurations, by the fields in which they differ from the family's defaults."""
    spec = find_spec("mythos_model")
    home = None if spec is None or spec.origin is None else Path(spec.origin).parent
    if home is None:
        raise PlanError("mythos_model is not installed")
    text = (home / "families" / "openmythos" / "variants.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def read_model(where: str) -> Model:
    """A variant, a bundle's folder, a folder with a config.json, or such a file.

    Raises:
        PlanError: it is none of them, or of no family that can be planned.
    """
    if where.lower() in variants():
        return of_config(where.lower(), variants()[where.lower()], "openmythos")
    path = Path(where)
    if (path / "manifest.json").is_file():
        from mythos_runtime.engine.memory import state_bytes
        from mythos_runtime.manifest import read_manifest
        from mythos_runtime.row_ports import GRAPHS

        manifest = read_manifest(path, verify_hashes=False)
        model = of_config(path.resolve().name, manifest.config, manifest.spec.family)
        state = state_bytes(manifest.spec) if set(GRAPHS) & set(manifest.spec.graphs) else 0
        model = replace(model, int8_cache=manifest.spec.int8_cache, state=state)
        if not manifest.formats:
            return replace(model, precision=manifest.precision)
        note = "the formats are mixed; each matrix is counted as the mean of them"
        stored = manifest.files["weights.safetensors"].bytes if "weights.safetensors" in manifest.files else None
        return replace(model, precision=manifest.precision, stored=stored, notes=(*model.notes, note))
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise PlanError(
            f"there is no model {where!r}: give a variant ({', '.join(variants())}), a bundle, or a config.json or its "
            "folder"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise PlanError(f"{file} should hold a JSON object, not {type(config).__name__}")
    family = _TYPES.get(str(config.get("model_type"))) or next(
        (family for family, marks in _MARKS.items() if marks <= config.keys()), None
    )
    if family is None:
        raise PlanError(
            f"{file} says that its model_type is {config.get('model_type')!r}; known are {', '.join(sorted(FAMILIES))}"
        )
    return of_config(path.resolve().name, config, family)


def of_config(name: str, config: Config, family: str) -> Model:
    """A model from the fields of its configuration."""
    if family not in FAMILIES:
        raise PlanError(f"{family} cannot be planned; {', '.join(sorted(FAMILIES))} can")
    try:
        model = FAMILIES[family](config)
        return replace(model, name=name, state=_FLOAT * model.dim * _CARRIED.get(family, 3))
    except (KeyError, TypeError) as error:
        raise PlanError(f"the configuration of {name} lacks what {family} needs: {error}") from error


def _swiglu(dim: int, width: int) -> int:
    return 3 * dim * width


def _openmythos(c: Config) -> Model:
    defaults = dict(vocab_size=32000, dim=2048, n_heads=16, n_kv_heads=4, max_seq_len=4096, max_loop_iters=16)
    defaults |= dict(prelude_layers=2, coda_layers=2, kv_lora_rank=512, q_lora_rank=1536, qk_rope_head_dim=64)
    defaults |= dict(qk_nope_head_dim=128, v_head_dim=128, n_experts=64, n_shared_experts=2, n_experts_per_tok=4)
    c = {**defaults, "expert_dim": 512, "lora_rank": 16, "attn_type": "mla", **c}
    D, H, E, K, F = c["dim"], c["n_heads"], c["n_experts"], c["n_experts_per_tok"], c["expert_dim"]
    if c["attn_type"] == "gqa":
        hd = D // H
        attention, kept, width = 2 * D * hd * (H + c["n_kv_heads"]), 0, 2 * c["n_kv_heads"] * hd
        attended, scales = 2 * H * hd, 2 * c["n_kv_heads"]
    else:
        Q, R, P, nope, v = (
            c[name] for name in ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
        )
        attention = D * Q + Q * H * (nope + P) + D * (R + P) + H * v * D
        kept, width = R * H * (nope + v) + Q + R, R + P  # kv_up and the norms
        attended, scales = H * (2 * R + P), 2
    around, shared = c["prelude_layers"] + c["coda_layers"], c["n_shared_experts"] * F * K
    dense = attention + _swiglu(D, D * 4 // 3)
    router, rank = E * (D + 1), c["lora_rank"]
    small = router + rank * (2 * D + c["max_loop_iters"]) + 2 * D + 1 + D + 1 + 3 * D
    parts = (
        Part("embedding", "table", c["vocab_size"] * D, lines=c["vocab_size"]),
        Part("layers around the loop", "around", around * dense, around * (kept + 2 * D) + D),
        Part("looped block", "loop", attention + _swiglu(D, shared), kept + small),
        Part("routed experts", "expert", E * _swiglu(D, F)),
    )
    longest, loops, behind = c["max_seq_len"], c["max_loop_iters"], c["coda_layers"]
    made = Model("", "openmythos", parts, loops, longest, around, 1, width, attended, E, K, tied=True, scales=scales)
    return replace(made, behind=behind)


def _decoder(D: int, F: int, layers: int, heads: int, kv: int, hd: int, norms: int) -> Part:
    """`layers` of a plain decoder, all in the loop."""
    attention = D * hd * (2 * heads + 2 * kv)
    return Part("looped layers", "loop", layers * (attention + _swiglu(D, F)), layers * norms * D)


def _ouro(c: Config) -> Model:
    D, V, H = c["hidden_size"], c["vocab_size"], c["num_attention_heads"]
    kv, layers = c.get("num_key_value_heads") or H, c["num_hidden_layers"]
    hd = c.get("head_dim") or D // H
    loop = _decoder(D, c["intermediate_size"], layers, H, kv, hd, norms=4)
    parts = (
        Part("embedding", "table", V * D, lines=V),
        replace(loop, kept=loop.kept + D + D + 1),  # the norm at a pass's end, and the gate
        Part("head", "around", V * D),
    )
    loops = c.get("total_ut_steps") or c.get("loops") or 4
    longest = c.get("max_position_embeddings", 4096)
    return Model("", "ouro", parts, loops, longest, 0, layers, 2 * kv * hd, 2 * H * hd, scales=2 * kv)


def _nanbeige(c: Config) -> Model:
    D, V, H, kv, hd = (
        c[n] for n in ("hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    )
    layers, tied = c["num_hidden_layers"], bool(c.get("tie_word_embeddings", False))
    loop = _decoder(D, c["intermediate_size"], layers, H, kv, hd, norms=2)
    head = () if tied else (Part("head", "around", V * D),)
    parts = (Part("embedding", "table", V * D, lines=V), replace(loop, kept=loop.kept + D), *head)
    longest, loops = c.get("max_position_embeddings", 4096), c.get("num_loops", 2)
    width, attended = 2 * kv * hd, 2 * H * hd
    return Model("", "nanbeige", parts, loops, longest, 0, layers, width, attended, tied=tied, scales=2 * kv)


def _huginn(c: Config) -> Model:
    D, F, V, H = (
        c["n_embd"],
        c["intermediate_size"],
        c["padded_vocab_size"],
        c.get("n_heads") or c["num_attention_heads"],
    )
    before, core, after = (c[f"n_layers_in_{part}"] for part in ("prelude", "recurrent_block", "coda"))
    hd = D // H
    one = _decoder(D, F, 1, H, H, hd, norms=4)
    one = replace(one, kept=one.kept + 2 * D)  # the bias of queries and keys
    parts = (
        Part("embedding", "table", V * D, lines=V),
        Part("layers around the loop", "around", (before + after) * one.rounded, (before + after) * one.kept + D),
        Part("looped layers", "loop", core * one.rounded + 2 * D * D, core * one.kept),
    )
    loops, longest = c.get("mean_recurrence", 32), c.get("block_size", 4096)
    made = Model("", "huginn", parts, loops, longest, before + after, core, 2 * D, 2 * D, tied=True, scales=2 * H)
    return replace(made, behind=after)


def _parcae(c: Config) -> Model:
    D, F, V, H, kv = (
        c[n] for n in ("n_embd", "intermediate_size", "padded_vocab_size", "num_attention_heads", "num_key_value_heads")
    )
    before, core, after = (c[f"n_layers_in_{part}"] for part in ("prelude", "recurrent_block", "coda"))
    layers, hd = before + core + after, D // H
    gated, diagonal = c.get("mlp_class_name") == "GatedMLP", c.get("injection_type", "diagonal") == "diagonal"
    block = 2 * D * D + 2 * kv * hd * D + (3 if gated else 2) * D * F
    small = 2 * D + (2 * D if c.get("qk_bias", False) else 0)
    # Layers with a table of value embeddings and a gate for them: what parity makes of both, as the reference counts.
    jump, parity = core * (c["mean_recurrence"] - 1), (core * c["mean_backprop_depth"] - 1) % 2
    gates = [(j + (jump if j >= before + core else 0)) % 2 == parity for j in range(layers)]
    valued = [j for j in range((layers - 1) % 2, layers, 2) if gates[j]]
    inside = sum(before <= j < before + core for j in valued)
    gate = kv * 32
    fed = D * D + 2 * D if diagonal else 0  # computed once, before the loop
    adapter = 2 * D * D if c.get("injection_type") == "linear" else 0
    tied = bool(c.get("tie_embeddings", True))
    around = (
        (before + after) * small + (len(valued) - inside) * gate + fed + D + (D if c.get("prelude_norm", True) else 0)
    )
    parts = (
        Part("embedding", "table", V * D, lines=V),
        *([Part("value embeddings", "table", len(valued) * V * kv * hd, lines=V)] if valued else []),
        Part("layers around the loop", "around", (before + after) * block + D * D, around),
        Part("looped layers", "loop", core * block + adapter, core * small + inside * gate),
        *([] if tied else [Part("head", "around", V * D)]),
    )
    longest, loops = c.get("block_size", 2048), c["mean_recurrence"]
    around, width = before + after, 2 * kv * hd
    made = Model("", "parcae", parts, loops, longest, around, core, width, 2 * D, tied=tied, scales=2 * kv)
    return replace(made, behind=after)


FAMILIES: dict[str, Callable[[Config], Model]] = {
    "openmythos": _openmythos,
    "ouro": _ouro,
    "nanbeige": _nanbeige,
    "huginn": _huginn,
    "parcae": _parcae,
}
_TYPES = {"openmythos": "openmythos", "open_mythos": "openmythos", "ouro": "ouro", "nanbeige": "nanbeige"}
_TYPES |= {"huginn_raven": "huginn"}
_MARKS = {"openmythos": {"max_loop_iters", "n_experts_per_tok"}, "ouro": {"total_ut_steps"}, "nanbeige": {"num_loops"}}
_MARKS |= {"parcae": {"n_layers_in_recurrent_block", "mean_backprop_depth", "injection_type"}}
_FLOAT = 4  # bytes
_CARRIED = {"huginn": 4}  # vectors of a state: h, the answer, what stands before the loop; here h before, too
