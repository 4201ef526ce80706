"""Generation by depth: what a sequence costs as its tokens get easier, and what many together gain over lock-step.

    document = measure_generation(Path("bundle"), GenerationOptions(threads=2))
    write_report(document, Path("reports"))          # generation.json, generation.html

`loads` says which depths tokens have (planted, or recorded from the bundle itself), `schedules` how they are run: by
the engine with depth where it is needed, by the engine with every loop, and in lock-step by the whole model's graph.
The engine is given the depths; lock-step runs every loop whatever they are. `measure` takes them in turns.
"""
