"""A tiny looped ONNX file with the ports of the contract, its weights in a .safetensors file by offset."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

VOCAB, DIM, WIDTH, LAYERS = 32, 16, 8, 2
NUMPY_TYPES = {"float16": np.float16, "float": np.float32}
SAFETENSORS_NAMES = {"float16": "F16", "float32": "F32", "int64": "I64"}

GRAPH = """<ir_version: 10, opset_import: ["": 18, "mythos": 1]>
looped (int64[batch,tokens] input_ids, int64[batch,tokens] positions, int64[batch] past_lengths, int64 max_loops,
        float halt_threshold, bool early_exit, FT[LAYERS,batch,past,WIDTH] past_layers,
        FT[loops,batch,past,WIDTH] past_loop)
    => (FT[batch,tokens,DIM] logits, int64 loops_run)
    <FT[VOCAB,DIM] embed, FT[DIM,WIDTH] down, FT[WIDTH,DIM] up, FT[DIM,1] halt>
{
  h0 = Gather(embed, input_ids)
  zero = Constant<value = int64 {0}>()
  one = Constant<value = int64 {1}>()
  onef = Constant<value = float {1.0}>()
  ax1 = Constant<value = int64[1] {1}>()
  ax2 = Constant<value = int64[1] {2}>()
  all_axes = Constant<value = int64[2] {0, 1}>()
  ids_shape = Shape(input_ids)
  cum0 = ConstantOfShape<value = float[1] {0.0}>(ids_shape)
  start = Less(zero, max_loops)
  loops_run, logits, cum_end = Loop<body = step (int64 it, bool go, int64 i, FT[batch,tokens,DIM] h,
      float[batch,tokens] cum) => (bool again, int64 i2, FT[batch,tokens,DIM] h2, float[batch,tokens] cum2) {
    past = Gather<axis = 0>(past_loop, i)
    new = MatMul(h, down)
    kv = Concat<axis = 1>(past, new)
    BODY
    p_raw = MatMul(h2, halt)
    p_float = Cast<to = 1>(p_raw)
    p_row = Squeeze(p_float, ax2)
    p_neg = Neg(p_row)
    p_exp = Exp(p_neg)
    p_one = Add(p_exp, onef)
    p = Div(onef, p_one)
    cum2 = Add(cum, p)
    halted = GreaterOrEqual(cum2, halt_threshold)
    halted_int = Cast<to = 6>(halted)
    all_halted_int = ReduceMin<keepdims = 0>(halted_int, all_axes)
    all_halted = Cast<to = 9>(all_halted_int)
    stop = And(all_halted, early_exit)
    not_stop = Not(stop)
    i2 = Add(i, one)
    more = Less(i2, max_loops)
    again = And(more, not_stop)
  }>(OMITTED, start, zero, h0, cum0)
}"""

SOUND_BODY = """
    kv_T = Transpose<perm = [0, 2, 1]>(kv)
    scores = MatMul(new, kv_T)
    scores_float = Cast<to = 1>(scores)
    weights_float = Softmax<axis = -1>(scores_float)
    weights = CastLike(weights_float, h)
    mixed = MatMul(weights, kv)
    update = MatMul(mixed, up)
    h2 = Add(h, update)
"""


def looped_model(element: str = "float16", body: str = SOUND_BODY) -> onnx.ModelProto:
    """The graph with inline weights. `body` makes h2 [B,T,D] from h [B,T,D], new [B,T,C] and kv [B,S+T,C]."""
    text = GRAPH.replace("BODY", body).replace("FT", element)
    for name in ("VOCAB", "DIM", "WIDTH", "LAYERS"):
        text = text.replace(name, str(globals()[name]))
    model = onnx.parser.parse_model(text)
    del model.graph.value_info[:]  # the text form declares the weights there
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "OMITTED":
                node.input[index] = ""
    shapes = {"embed": (VOCAB, DIM), "down": (DIM, WIDTH), "up": (WIDTH, DIM), "halt": (DIM, 1)}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = (random.standard_normal(shape) * 0.1).astype(NUMPY_TYPES[element])
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def save_with_safetensors(model: onnx.ModelProto, folder: Path, header_padding: int = 0) -> Path:
    """Writes model.onnx and weights.safetensors; `header_padding` shifts every tensor to another alignment."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, object] = {}
    data = b""
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        header[tensor.name] = {
            "dtype": SAFETENSORS_NAMES[str(values.dtype)],
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + values.nbytes],
        }
        data += values.tobytes()
    head = json.dumps(header).encode() + b" " * header_padding
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    offset = 8 + len(head)
    for tensor in model.graph.initializer:
        length = onnx.numpy_helper.to_array(tensor).nbytes
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights.safetensors"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        offset += length
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def looped_onnx(tmp_path: Path) -> Callable[..., Path]:
    """`looped_onnx(element=..., body=..., header_padding=..., edit=...)` writes a bundle-like folder, returns its file.

    `edit(model)` changes the model before its weights move out.
    """

    def make(
        element: str = "float16",
        body: str = SOUND_BODY,
        header_padding: int = 0,
        edit: Callable[[onnx.ModelProto], None] | None = None,
    ) -> Path:
        model = looped_model(element, body)
        if edit is not None:
            edit(model)
        return save_with_safetensors(model, tmp_path / "bundle", header_padding)

    return make
