"""mythos::paged_mla_attention in Triton, with the signature and the result of the one in `mythos_model.paged_ops`.

The absorbed form, as there. `plan.py` says which kernels run on which grid, `paged_attention.py` holds the attention.
"""

from __future__ import annotations

from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.paged_mla.plan import plans
from mythos_export.kernels.triton_run import check_weights, execute, paged_buffers, paged_precision


def paged_mla_attention_(
    q_nope: Tensor,
    q_rope: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    kv_up: Tensor,
    scale: float,
    v_head_dim: int,
) -> Tensor:
    """Multi-head latent attention of packed rows, whose entries are written into `cache`.

    Arguments as `mythos_model.paged_ops.paged_mla_attention_`: q_nope [r, H, nope], q_rope [r, H, P], entry [r, R + P],
    cache [pages, page, R + P], contiguous, or int8 [pages, page, R + P + 4] with floats of float32, tables int64
    [s, b], span and position int64 [r], kv_up [H * (nope + v), R] -> [r, H * v], zeros for padding. ValueError where
    the kernels cannot take them.
    """
    precision, packed = paged_precision("paged_mla_attention", cache, 2, entry, q_nope, q_rope, kv_up)
    check_weights("paged_mla_attention", kv_up=kv_up)
    r, H, nope = q_nope.shape
    out = q_nope.new_empty(r, H * v_head_dim)
    if not out.numel():
        return out
    buffers, sizes = paged_buffers("paged_mla_attention", entry, cache, tables, span, position, scale)
    buffers |= {"q_nope": q_nope.contiguous(), "q_rope": q_rope.contiguous(), "kv_up": kv_up, "out": out}
    plan = choose(plans(H, nope, q_rope.shape[-1], v_head_dim, kv_up.shape[1], precision, packed), sizes)
    execute(plan, buffers, sizes)
    return out


def paged_mla_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    kv_up: Tensor,
    scale: float,
    v_head_dim: int,
) -> tuple[Tensor, Tensor]:
    """As `paged_mla_attention_`, on a copy of the cache, which is returned too."""
    cache, place = cache.clone(), (tables, span, position)
    return paged_mla_attention_(q_nope, q_rope, entry, cache, *place, kv_up, scale, v_head_dim), cache
