"""Bundles whose experts are in shards, each for a process of its own: one of this machine, or of another.

    entry       what the manifest says of it
    share       which experts of which rows go to which shard
    wire        the messages, over multiprocessing.connection
    worker      the process of a shard
    near, rays  who starts these processes: this machine, or Ray
    group       all shards of a model: asked together, watched, and started anew when one is lost

What stays together (norms, attention, router, shared experts, residuals, injection, halting) is the trunk; the engine
runs it (`engine/sharded.py`). A shard gets the rows that chose experts of it, and returns what each of these experts
puts out, D floats each; the trunk weighs and sums them in the order in which one process does. Sums by shard would be
fewer floats where several chosen experts meet in one, but their roundings would depend on the number of shards.
"""
