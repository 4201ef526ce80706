"""mythos::mla_attention as a TensorRT plug-in; see `kernels/plugin`. Legend of the extents: `mythos_model.ops`."""

from __future__ import annotations

from mythos_export.kernels.plugin.cache import CACHE, CACHE_SIZES
from mythos_export.kernels.plugin.record import Input, PluginRecord

PLUGIN = PluginRecord(
    "mla_attention",
    (
        Input("q_nope", ("B", "T", "H", "nope")),
        Input("q_rope", ("B", "T", "H", "P")),
        *CACHE,
        Input("kv_up", ("H * (nope + v)", "R")),
    ),
    (("scale", float), ("v_head_dim", int)),
    (("B",), ("T",), ("H", "v_head_dim")),
    CACHE_SIZES,
)
