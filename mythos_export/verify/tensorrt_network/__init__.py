"""A CPU interpreter of TensorRT's parsed network: what TensorRT understood of the ONNX file, loop included.

`network` reads an INetworkDefinition into plain records, `layers` says what each layer type means in numpy,
`interpreter` runs them, `worker` is the process that TensorRT lives in, `process` its keeper. It checks the network as
parsed, not TensorRT's kernels: those need a GPU.
"""
