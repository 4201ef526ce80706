"""What is measured, and how: each module is a program, `python -m benchmarks.NAME`, whose figures are in results/."""
