"""Passes over the ONNX graph, one a file; `lower.py` and the targets list them in their order."""
