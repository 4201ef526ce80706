"""mythos::moe as a TensorRT plug-in; see `kernels/plugin`. Legend of the extents: `mythos_model.ops`."""

from __future__ import annotations

from mythos_export.kernels.plugin.record import Input, PluginRecord

PLUGIN = PluginRecord(
    "moe",
    (
        Input("x", ("B", "T", "D")),
        Input("expert_index", ("B", "T", "K"), integer=True),
        Input("expert_weight", ("B", "T", "K")),
        Input("routed_gate_up", ("E", "2F", "D")),
        Input("routed_down", ("E", "D", "F")),
        Input("shared_gate_up", ("2Fs", "D")),
        Input("shared_down", ("D", "Fs")),
    ),
    (),
    (("B",), ("T",), ("D",)),
    {"n": "B * T"},
)
