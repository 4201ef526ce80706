"""What both kinds of attention over a paged cache share: the pieces of their ONNX bodies and of their references.

The bodies write with one ScatterND from `cache` to `cache_next`: a runtime that is given one buffer as both appends in
place (ONNX Runtime's kernel looks at the pointers). Padding writes what the first real row writes, once more.

Of int8 pages (`mythos_model.cache_lines`) the entries are packed before they are written, and what is read is unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from mythos_export.kernels.reference import Array
from mythos_export.kernels.rounded_line.function import PACK, UNPACK, powers
from mythos_export.kernels.rounded_line.reference import pack, unpack
from mythos_export.kernels.text import parse_function

ROWS = "cache, tables, span, position"
OUTPUTS = "out, cache_next"

# What the bodies begin with: `source`, the rows whose entries are written, and where they go.
_BEGIN = """
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  minus_one = Constant <value_ints = [-1]> ()
  zero_scalar = Constant <value_int = 0> ()
  one_scalar = Constant <value_int = 1> ()
  allow = Constant <value_float = 0.0> ()
  forbid = Constant <value_float = -1.0e30> ()
  scale_value = Constant <value_float: float = @scale> ()
  page_1 = Shape <start = 1, end = 2> (cache)
  page = Squeeze (page_1, zero)
  is_real = GreaterOrEqual (span, zero_scalar)

  rows_1 = Shape (span)
  rows = Squeeze (rows_1, zero)
  row = Range (zero_scalar, rows, one_scalar)
  real_number = Cast <to = 1> (is_real)
  any_real_number = ReduceMax <keepdims = 0> (real_number)
  any_real = Cast <to = 9> (any_real_number)
  behind = Where (is_real, row, rows)
  behind_number = Cast <to = 1> (behind)
  first_number = ReduceMin <keepdims = 1> (behind_number)
  first_any = Cast <to = 7> (first_number)
  row_last = Sub (rows_1, one)
  first_real = Min (first_any, row_last)
  source = Where (is_real, row, first_real)
  to_span_1 = Gather <axis = 0> (span, source)
  to_span = Max (to_span_1, zero_scalar)
  to_position_1 = Gather <axis = 0> (position, source)
  to_position_2 = Max (to_position_1, zero_scalar)
  to_position = Where (any_real, to_position_2, zero_scalar)
  to_block = Div (to_position, page)
  to_block_start = Mul (to_block, page)
  to_offset = Sub (to_position, to_block_start)
  to_span_2d = Unsqueeze (to_span, one)
  to_block_2d = Unsqueeze (to_block, one)
  at_table = Concat <axis = 1> (to_span_2d, to_block_2d)
  to_page_1 = GatherND (tables, at_table)
  to_page = Where (any_real, to_page_1, zero_scalar)
  to_page_2d = Unsqueeze (to_page, one)
  to_offset_2d = Unsqueeze (to_offset, one)
  at = Concat <axis = 1> (to_page_2d, to_offset_2d)
  new_line = Gather <axis = 0> (entry, source)
"""

_WRITE = """
  old_entry = GatherND (cache, at)
  written = Where (any_real, new_entry, old_entry)
  cache_next = ScatterND (cache, at, written)

  last_1 = Where (is_real, position, minus_one)
  last = Unsqueeze (last_1, one)
  blocks_1 = Shape <start = 1, end = 2> (tables)
  blocks = Squeeze (blocks_1, zero)
  from_span = Max (span, zero_scalar)
  slots = Mul (blocks, page)
  slots_1 = Reshape (slots, one)
  width = Shape <start = 2, end = 3> (cache)
  keys_shape = Concat <axis = 0> (zero, slots_1, width)
"""

_BY_ROW = """
  block = Range (zero_scalar, blocks, one_scalar)
  block_start = Mul (block, page)
  reached = LessOrEqual (block_start, last)
  row_tables = Gather <axis = 0> (tables, from_span)
  pages = Where (reached, row_tables, zero_scalar)
  keys_4d = Gather <axis = 0> (cache_next, pages)
  keys_held = Reshape (keys_4d, keys_shape)
"""

# Nothing here depends on `cache_next`: where only the entries are wanted, the pool of pages is read and never copied.
_BY_SPAN = """
  page_count_1 = Shape <start = 0, end = 1> (cache)
  page_count = Squeeze (page_count_1, zero)
  is_below = Less (tables, page_count)
  is_number = GreaterOrEqual (tables, zero_scalar)
  is_page = And (is_below, is_number)
  pages = Where (is_page, tables, zero_scalar)
  held_4d = Gather <axis = 0> (cache, pages)
  held = Reshape (held_4d, keys_shape)
  to_position_2d = Unsqueeze (to_position, one)
  at_span = Concat <axis = 1> (to_span_2d, to_position_2d)
  held_entry = GatherND (held, at_span)
  put = Where (any_real, new_entry, held_entry)
  by_span = ScatterND (held, at_span, put)
  keys_held = Gather <axis = 0> (by_span, from_span)
"""

_MASK = """
  slot = Range (zero_scalar, slots, one_scalar)
  seen = LessOrEqual (slot, last)
  seen_3d = Unsqueeze (seen, two)
  nothing = CastLike (allow, entry)
  keys = Where (seen_3d, keys_any, nothing)
  mask_2d = Where (seen, allow, forbid)
  mask = Unsqueeze (mask_2d, one)
"""

# scores in the compute dtype -> weights, softmax taken in float32; `mask_nd` is the mask in the rank of the scores.
SOFTMAX = """
  scores_wide = Cast <to = 1> (scores)
  scores_scaled = Mul (scores_wide, scale_value)
  scores_masked = Add (scores_scaled, mask_nd)
  weights_wide = Softmax <axis = -1> (scores_masked)
  weights = CastLike (weights_wide, entry)
"""

# heads_out [r, heads..., width] -> out [r, heads * width], padding zero.
_EPILOGUE = """
  out_shape = Constant <value_ints = [0, -1]> ()
  out_any = Reshape (heads_out, out_shape)
  real_2d = Unsqueeze (is_real, one)
  out = Where (real_2d, out_any, nothing)
"""


def paged_function(
    name: str,
    inputs: str,
    attention: str,
    attributes: str,
    tensorrt: bool = False,
    packed: tuple[str, str] | None = None,
) -> onnx.FunctionProto:
    """A function body.

    Args:
        attention: what is between keys and result: of keys [r, S, C], with zeros behind a row's own entry, where
            S = blocks * page, and mask [r, 1, S], float32, to heads_out [r, heads..., width].
        tensorrt: for its network, which is given the entries alone (`passes/return_entries.py`).
        packed: of int8 pages, what makes `integers` [r, C] and `scales` [r, parts] of new_line [r, C]; and what makes
            keys_any [r, S, C] of key_integers [r, S, C] and key_scales [r, S, parts].
    """
    keys = _BY_SPAN if tensorrt else _BY_ROW
    if packed is None:
        body = _BEGIN.replace("new_line", "new_entry") + _WRITE + keys.replace("keys_held", "keys_any")
    else:
        write, read = packed[0] + PACK.replace("packed_lines", "new_entry"), UNPACK + packed[1]
        body = _BEGIN + write + _WRITE + keys.replace("keys_held", "packed_keys") + read
    function = parse_function(name, inputs, body + _MASK + attention + _EPILOGUE, attributes, OUTPUTS)
    if packed is not None:
        function.node.insert(0, powers())
    return function


def append(entry: Array, cache: Array, tables: Array, span: Array, position: Array, parts: Sequence[int]) -> Array:
    """A copy of the cache with the rows' entries, as the operators return it; `parts` of an int8 line."""
    cache, page = cache.copy(), cache.shape[1]
    if cache.dtype == np.int8:
        entry = pack(entry, parts)
    for row, (s, p) in enumerate(zip(span, position, strict=True)):
        if s >= 0:
            cache[tables[s, p // page], p % page] = entry[row]
    return cache


def entries(cache: Array, table: Array, position: int, parts: Sequence[int], dtype: type) -> Array:
    """Entries 0 .. position of the span with this table, in `dtype` [position + 1, C]."""
    page = cache.shape[1]
    found = np.concatenate([cache[number] for number in table[: position // page + 1]])[: position + 1]
    return unpack(found, parts, dtype) if cache.dtype == np.int8 else found
