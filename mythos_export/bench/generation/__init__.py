"""Generation by depth: what a sequence costs as its tokens get easier, and what many together gain over lock-step.

    document = measure_generation(Path("bundle"), GenerationOptions(threads=2))
    write_report(document, Path("reports"))          # generation.json, generation.html

`loads` says which depths tokens have (planted, or recorded from the bundle itself), `schedules` how they are run: by
the engine with depth where it is needed, by the engine with every loop, and in lock-step by the whole model's graph.
All are given the same depths, so that they do the same work; `measure` takes them in turns.
"""
