"""The engine's row graphs in PyTorch: pages and states are tensors where the graphs run, on a GPU or on the CPU.

`programs` cuts rows.pt2 into enter, step and leave; `memory` holds pages and states; `graphs` is what the engine calls,
one upload and one launch a call; `captures` makes CUDA graphs of the calls. Of a call of the step only who has halted,
and after how many loops, comes back, of a call of leave the logits that were asked for.

On the CPU the same code runs, and is tested, on CPU tensors. **On a GPU it was not executed yet.**
"""
