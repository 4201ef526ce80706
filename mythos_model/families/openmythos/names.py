"""Parameter names and shapes of OpenMythos checkpoints, what they tell of the configuration, and how experts stack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from mythos_model.errors import CheckpointError
from mythos_model.families.family import only, own_fields
from mythos_model.families.openmythos.config import MythosConfig
from mythos_model.weights import Maker, Sources

Shape = tuple[int, ...]
LOOP = "recurrent.block."


def reference_shapes(config: MythosConfig) -> dict[str, Shape]:
    """Every tensor of a checkpoint but the tied head and the rotary tables, which are not weights."""
    D = config.dim
    shapes: dict[str, Shape] = {"embed.weight": (config.vocab_size, D), "norm.weight": (D,)}
    dense = _swiglu("ffn.", D, config.dense_ffn_dim)
    for part, layers in (("prelude", config.prelude_layers), ("coda", config.coda_layers)):
        for i in range(layers):
            block = _block(config) | dense
            shapes |= {f"{part}.{i}.{name}": shape for name, shape in block.items()}
    moe: dict[str, Shape] = {"ffn.router.weight": (config.n_experts, D), "ffn.router_bias": (config.n_experts,)}
    shared_dim = config.expert_dim * config.n_experts_per_tok
    for j in range(config.n_experts):
        moe |= _swiglu(f"ffn.routed_experts.{j}.", D, config.expert_dim)
    for j in range(config.n_shared_experts):
        moe |= _swiglu(f"ffn.shared_experts.{j}.", D, shared_dim)
    shapes |= {f"{LOOP}{name}": shape for name, shape in (_block(config) | moe).items()}
    rank = config.lora_rank
    recurrent: dict[str, Shape] = {
        "injection.log_A": (D,),
        "injection.log_dt": (1,),
        "injection.B": (D,),
        "act.halt.weight": (1, D),
        "act.halt.bias": (1,),
        "lora.down.weight": (rank, D),
        "lora.B": (rank, D),
        "lora.scale.weight": (config.max_loop_iters, rank),
        "norm.weight": (D,),
    }
    return shapes | {f"recurrent.{name}": shape for name, shape in recurrent.items()}


def _swiglu(prefix: str, dim: int, width: int) -> dict[str, Shape]:
    return {
        f"{prefix}gate.weight": (width, dim),
        f"{prefix}up.weight": (width, dim),
        f"{prefix}down.weight": (dim, width),
    }


def _block(config: MythosConfig) -> dict[str, Shape]:
    """Norms and attention of one transformer block."""
    D, H = config.dim, config.n_heads
    shapes: dict[str, Shape] = {"attn_norm.weight": (D,), "ffn_norm.weight": (D,)}
    if config.attn_type == "gqa":
        kv = config.n_kv_heads * config.head_dim
        return shapes | {
            "attn.wq.weight": (H * config.head_dim, D),
            "attn.wk.weight": (kv, D),
            "attn.wv.weight": (kv, D),
            "attn.wo.weight": (D, H * config.head_dim),
        }
    R, P, nope, v, Q = (
        config.kv_lora_rank,
        config.qk_rope_head_dim,
        config.qk_nope_head_dim,
        config.v_head_dim,
        config.q_lora_rank,
    )
    return shapes | {
        "attn.q_down.weight": (Q, D),
        "attn.q_norm.weight": (Q,),
        "attn.q_up_nope.weight": (H * nope, Q),
        "attn.q_up_rope.weight": (H * P, Q),
        "attn.kv_down.weight": (R + P, D),
        "attn.kv_norm.weight": (R,),
        "attn.kv_up.weight": (H * (nope + v), R),
        "attn.wo.weight": (D, H * v),
    }


# Fields that change results and that no tensor shape tells.
_NEVER_IN_SHAPES = ("max_seq_len", "act_threshold", "rope_theta")


def read_config(given: Mapping[str, object], shapes: Mapping[str, Shape]) -> MythosConfig:
    """A configuration from what is given, foreign fields included, and for the rest from the tensors' shapes.

    Raises:
        ConfigError: an unknown field, or fields that do not hold together.
        CheckpointError: as `infer_config`.
    """
    only(given, "tie_word_embeddings", (True,), "the head of this family is the embedding")
    own = own_fields(MythosConfig, given, ("tie_word_embeddings",))
    complete = set(MythosConfig.__dataclass_fields__) <= set(own)
    return MythosConfig.from_dict(own) if complete else infer_config(shapes, own)


def infer_config(shapes: Mapping[str, Shape], given: Mapping[str, object]) -> MythosConfig:
    """A configuration from what is given and, for the rest, from the shapes of the tensors.

    Raises:
        CheckpointError: fields that shapes cannot tell are missing (all are named), or tensors needed to infer are.
    """
    found = _inferred(shapes)
    values = {**found, **given}
    needed = list(_NEVER_IN_SHAPES)
    if values.get("attn_type") == "gqa":
        needed += ["n_heads"]
    if not values.get("n_shared_experts"):
        needed += ["n_experts_per_tok"]
    missing = [name for name in needed if name not in values]
    if missing:
        raise CheckpointError(
            f"the checkpoint holds no configuration, and its tensors do not tell {', '.join(missing)}; give them with "
            "--config config.json (a file with just these fields is enough), or name the model with --variant"
        )
    if values["attn_type"] == "gqa" and "n_kv_heads" not in values:
        key_rows, dim = shapes[f"{LOOP}attn.wk.weight"]
        values["n_kv_heads"] = key_rows * int(str(values["n_heads"])) // dim
    return MythosConfig.from_dict(values)


def _inferred(shapes: Mapping[str, Shape]) -> dict[str, object]:
    def shape(name: str, rank: int = 2) -> Shape:
        found = shapes.get(name)
        if found is None or len(found) != rank:
            raise CheckpointError(
                f"this does not look like an OpenMythos checkpoint: tensor {name} is "
                f"{'missing' if found is None else f'of shape {list(found)}'}, so the configuration cannot be "
                "inferred; give one with --config or --variant to see everything that is missing"
            )
        return found

    def count(pattern: str) -> int:
        return len({match[1] for name in shapes if (match := re.match(pattern, name))})

    values: dict[str, object] = {}
    values["vocab_size"], values["dim"] = shape("embed.weight")
    values["prelude_layers"], values["coda_layers"] = count(r"prelude\.(\d+)\."), count(r"coda\.(\d+)\.")
    values["max_loop_iters"], values["lora_rank"] = shape("recurrent.lora.scale.weight")
    values["n_experts"] = shape(f"{LOOP}ffn.router.weight")[0]
    width = shape(f"{LOOP}ffn.routed_experts.0.gate.weight")[0]
    values["expert_dim"] = width
    values["n_shared_experts"] = count(re.escape(LOOP) + r"ffn\.shared_experts\.(\d+)\.")
    if values["n_shared_experts"] and width:
        values["n_experts_per_tok"] = shape(f"{LOOP}ffn.shared_experts.0.gate.weight")[0] // width
    if "freqs_cis" in shapes:
        values["max_seq_len"] = shapes["freqs_cis"][0]
    if f"{LOOP}attn.wq.weight" in shapes:
        return values | {"attn_type": "gqa"}
    latent = shape(f"{LOOP}attn.kv_norm.weight", 1)[0]
    rope = shape(f"{LOOP}attn.kv_down.weight")[0] - latent
    heads = shape(f"{LOOP}attn.q_up_rope.weight")[0] // max(rope, 1)
    return values | {
        "attn_type": "mla",
        "kv_lora_rank": latent,
        "q_lora_rank": shape(f"{LOOP}attn.q_norm.weight", 1)[0],
        "qk_rope_head_dim": rope,
        "n_heads": heads,
        "qk_nope_head_dim": shape(f"{LOOP}attn.q_up_nope.weight")[0] // max(heads, 1),
        "v_head_dim": shape(f"{LOOP}attn.wo.weight")[1] // max(heads, 1),
    }


FFN = f"{LOOP}ffn."


def stack_experts(config: MythosConfig, state: Mapping[str, Tensor]) -> Sources:
    """The checkpoint's names -> MythosModel's: routed experts stacked on a first axis, shared ones side by side."""
    experts = (f"{FFN}routed_experts.", f"{FFN}shared_experts.")
    found: dict[str, Maker | list[Maker]] = {
        name: partial(state.__getitem__, name) for name in state if not name.startswith(experts)
    }

    def of(kind: str, expert: int, projection: str) -> Tensor:
        return state[f"{FFN}{kind}_experts.{expert}.{projection}.weight"]

    def gate_up(expert: int) -> Tensor:
        return torch.cat([of("routed", expert, "gate"), of("routed", expert, "up")])

    def shared(projections: tuple[str, ...], axis: int) -> Tensor:
        parts = [of("shared", j, projection) for projection in projections for j in range(config.n_shared_experts)]
        empty = (0, config.dim) if axis == 0 else (config.dim, 0)
        return torch.cat(parts, axis) if parts else state["embed.weight"].new_empty(empty)

    routed = range(config.n_experts)
    found[f"{FFN}routed_gate_up"] = [partial(gate_up, j) for j in routed]  # [E, 2F, D]
    found[f"{FFN}routed_down"] = [partial(of, "routed", j, "down") for j in routed]  # [E, D, F]
    found[f"{FFN}shared_gate_up"] = partial(shared, ("gate", "up"), 0)  # [2Fs, D]
    found[f"{FFN}shared_down"] = partial(shared, ("down",), 1)  # [D, Fs]
    return Sources(found)


def unstack_experts(config: MythosConfig, stacked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MythosModel's names -> the checkpoint's; tensors are views where they can be."""
    names = ("routed_gate_up", "routed_down", "shared_gate_up", "shared_down")
    routed_gate_up, routed_down, shared_gate_up, shared_down = (stacked[FFN + name] for name in names)
    state = {name: tensor for name, tensor in stacked.items() if name.removeprefix(FFN) not in names}

    def put(kind: str, expert: int, gate: Tensor, up: Tensor, down: Tensor) -> None:
        for projection, tensor in (("gate", gate), ("up", up), ("down", down)):
            state[f"{FFN}{kind}_experts.{expert}.{projection}.weight"] = tensor

    for j in range(config.n_experts):
        gate, up = routed_gate_up[j].chunk(2)
        put("routed", j, gate, up, routed_down[j])
    if config.n_shared_experts:
        parts = shared_gate_up.chunk(2 * config.n_shared_experts)
        downs = shared_down.chunk(config.n_shared_experts, 1)
        for j, down in enumerate(downs):
            put("shared", j, parts[j], parts[config.n_shared_experts + j], down)
    return state
