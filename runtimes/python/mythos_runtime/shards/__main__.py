"""`python -m mythos_runtime.shards BUNDLE INDEX THREADS`: the process of a shard, as `near.Processes` starts it."""

from mythos_runtime.shards.worker import main

main()
