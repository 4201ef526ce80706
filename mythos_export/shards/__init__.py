"""`--expert-shards N`: the step of the row graphs, cut at its experts, with a file of weights for each shard.

    cut      step.onnx -> route, shared, rest, and a graph for every shard
    files    the weights: those of the trunk in one file, the experts of each shard in one of its own

What a bundle then no longer needs, the model as one graph and all weights in one file, is there until it is verified.
"""
