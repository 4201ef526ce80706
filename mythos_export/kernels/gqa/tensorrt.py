"""mythos::gqa_attention as a TensorRT plug-in; see `kernels/plugin`. Legend of the extents: `mythos_model.ops`."""

from __future__ import annotations

from mythos_export.kernels.plugin.cache import CACHE, CACHE_SIZES
from mythos_export.kernels.plugin.record import Input, PluginRecord

PLUGIN = PluginRecord(
    "gqa_attention",
    (Input("q", ("B", "T", "H", "hd")), *CACHE),
    (("scale", float), ("kv_heads", int)),
    (("B",), ("T",), ("H", "hd")),
    CACHE_SIZES,
)
