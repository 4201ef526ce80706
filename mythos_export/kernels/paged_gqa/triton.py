"""mythos::paged_gqa_attention in Triton, with the signature and the result of the one in `mythos_model.paged_ops`.

`plan.py` says which kernels run on which grid, `paged_attention.py` holds the attention itself.
"""

from __future__ import annotations

from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.paged_gqa.plan import plans
from mythos_export.kernels.triton_run import execute, paged_buffers, paged_precision


def paged_gqa_attention_(
    q: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    scale: float,
    kv_heads: int,
) -> Tensor:
    """Grouped-query attention of packed rows, whose entries are written into `cache`.

    Arguments as `mythos_model.paged_ops.paged_gqa_attention_`: q [r, H, hd], entry [r, C], cache [pages, page, C],
    contiguous, or int8 [pages, page, C + 4 * G] with floats of float32, tables int64 [s, b], span and position
    int64 [r] -> [r, H * hd], zeros for padding. ValueError where the kernels cannot take them.
    """
    precision, packed = paged_precision("paged_gqa_attention", cache, 2 * kv_heads, entry, q)
    r, H, head = q.shape
    out = q.new_empty(r, H * head)
    if not out.numel():
        return out
    buffers, sizes = paged_buffers("paged_gqa_attention", entry, cache, tables, span, position, scale)
    plan = choose(plans(H, kv_heads, head, precision, packed), sizes)
    execute(plan, {**buffers, "q": q.contiguous(), "out": out}, sizes)
    return out


def paged_gqa_attention(
    q: Tensor,
    entry: Tensor,
    cache: Tensor,
    tables: Tensor,
    span: Tensor,
    position: Tensor,
    scale: float,
    kv_heads: int,
) -> tuple[Tensor, Tensor]:
    """As `paged_gqa_attention_`, on a copy of the cache, which is returned too."""
    cache = cache.clone()
    return paged_gqa_attention_(q, entry, cache, tables, span, position, scale, kv_heads), cache
