"""The table of weight formats stands in Python and in C++: the library says what it was built with."""

from __future__ import annotations

import pytest
from cpu_ops import LIBRARY, describe, node_model, run, session
from product_cases import linear_inputs

from mythos_model.formats import FORMATS, PLAIN

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")


def test_both_languages_have_the_same_table() -> None:
    said = {form["name"]: form for form in describe()["formats"] if form["name"] != PLAIN}
    ours = {
        name: {
            "name": name,
            "bits": form.bits,
            "block": form.block,
            "tile": form.tile,
            "zero": form.zero,
            "scale_bits": 8 * form.scale.itemsize,
        }
        for name, form in FORMATS.items()
        if form.scale is not None and not form.activations and form.native
    }
    assert said == ours


def test_a_format_that_its_weights_are_not_is_refused() -> None:
    inputs, attributes = linear_inputs(0, "int8", (2,), 32, 16)
    model = node_model("linear", **attributes)
    said = next(attribute for attribute in model.graph.node[0].attribute if attribute.name == "format")
    said.s = b"int4"
    with pytest.raises(Exception, match="mythos.linear: format is 'int4', but the weights are those of 'int8'"):
        session(model)
    with pytest.raises(Exception, match=r"mythos.linear: scale has the shape \[1, 1, 15\], expected \[1, 1, 16\]"):
        run("linear", {**inputs, "scale": inputs["scale"][..., :15]}, **attributes)
