"""What is measured, and how: each module is a program, `python -m benchmarks.NAME`, whose figures are in results/."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # also where ONNX Runtime is imported before mythos_runtime
