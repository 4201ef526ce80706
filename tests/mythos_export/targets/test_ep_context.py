"""The ONNX file beside an engine: what ONNX Runtime's TensorRT-RTX provider asks of it."""

from __future__ import annotations

from pathlib import Path

import onnx
from golden_bundles import Bundles

from mythos_export.targets.ep_context import write_ep_context


def test_it_names_the_engine_beside_it_and_has_the_graph_s_ports(bundles: Bundles, tmp_path: Path) -> None:
    source = bundles["mla_decode"] / "model.onnx"
    path = write_ep_context(tmp_path / "model.sm86.engine", source)
    assert path.name == "model.sm86.ep_context.onnx"
    graph, original = onnx.load(path).graph, onnx.load(source, load_external_data=False).graph
    assert [port.name for port in graph.input] == [port.name for port in original.input]
    assert [port.name for port in graph.output] == [port.name for port in original.output]
    (node,) = graph.node
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes["ep_cache_context"] == b"model.sm86.engine"
    assert (attributes["embed_mode"], attributes["main_context"]) == (0, 0)
