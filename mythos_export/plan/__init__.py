"""What a model takes before anybody loads it: memory, bytes and arithmetic of a token, on devices that are not here.

    models      a model by its matrices, from a configuration, a variant or a bundle: nothing is allocated
    devices     memory, and what it reads and multiplies at best: presets, and this machine measured
    estimate    the two together: times against depth, what fits, what to shard
    page        the same as HTML

No torch on the way: an answer takes less than a second.
"""
