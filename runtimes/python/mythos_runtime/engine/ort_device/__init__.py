"""The engine's row graphs in ONNX Runtime on a device: pages and states lie there, and PyTorch is not needed.

`device` is memory there and graphs bound to it; `lines` moves lines of pools by the bundle's graphs for that; `memory`
holds pages and states; `graphs` is what the engine calls. A call is one of ONNX Runtime, whose numbers go up in one
piece. Of a call of the step only who has halted, and after how many loops, comes back; of a call of leave the logits
that were asked for.

On the CPU the same code runs, and is tested, on the CPU's memory. **On a GPU it was not executed yet.**
"""
