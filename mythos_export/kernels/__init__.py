"""The operators: a folder for each, one registry (`op.py`), and what their implementations share."""
