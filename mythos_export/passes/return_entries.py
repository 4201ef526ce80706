"""Have a row graph return the entries of its rows in place of whole caches.

TensorRT has no output that is an input's memory: a cache that comes out would be a copy of all pages. Whoever runs the
graph writes the entries where the tables say, which is a copy of a line a row.
"""

from __future__ import annotations

import onnx_ir as ir

from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.paged import OUTPUTS
from mythos_export.kernels.text import DOMAIN

SUFFIX = "_next"  # of a cache's output; `ENTRY` stands in its place
ENTRY = "_entry"


def return_entries(model: ir.Model) -> None:
    """`cache_0_next` [pages, page, C] becomes `cache_0_entry` [rows, C], and so on."""
    cache = OUTPUTS.split(", ").index("cache_next")
    for node in list(model.graph):
        if node.domain != DOMAIN or not node.op_type.startswith("paged_"):
            continue
        old = node.outputs[cache]
        entry = node.inputs[OPERATORS[node.op_type].inputs.index("entry")]
        rows = node.inputs[OPERATORS[node.op_type].inputs.index("span")]
        assert old.name is not None and old.shape is not None and entry is not None and rows is not None
        assert rows.shape is not None
        given = ir.Value(name=old.name.removesuffix(SUFFIX) + ENTRY, type=old.type)
        given.shape = ir.Shape([rows.shape[0], old.shape[2]])
        model.graph.append(ir.Node("", "Identity", [entry], outputs=[given]))
        model.graph.outputs[list(model.graph.outputs).index(old)] = given
        old.name = f"{old.name}_unused"
