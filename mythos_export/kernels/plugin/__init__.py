"""Operators as TensorRT plug-ins that launch kernels compiled by `triton_build`.

`record` what TensorRT has to know of an operator (each in its own folder, as `tensorrt.py`), `program` what a plug-in
carries, `driver` and `launch` how its kernels start, `tensorrt` the classes that TensorRT calls.

Nothing here imports torch or triton: it is loaded where engines are built and where they run.
"""
