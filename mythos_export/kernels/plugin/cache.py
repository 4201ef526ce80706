"""What the plug-ins of both attentions share: the inputs of the cache, and the sizes that `split_plan.SIZES` names."""

from __future__ import annotations

from mythos_export.kernels.plugin.record import Input

CACHE = (
    Input("past", ("L", "B", "S", "C")),
    Input("layer", (), integer=True),
    Input("chunk", ("B", "T", "C")),
    Input("positions", ("B", "T"), integer=True),
    Input("past_lengths", ("B",), integer=True),
)
CACHE_SIZES = {
    **{name: name for name in ("B", "T", "S", "scale")},
    "stride_layer": "B * S * C",
    "stride_batch": "S * C",
}
