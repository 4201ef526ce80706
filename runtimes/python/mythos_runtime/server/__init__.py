"""A bundle behind the OpenAI protocol: `mythos serve BUNDLE`. Needs the extra `serve`.

app.py puts it together; engine_loop.py is the thread that owns the engine, the rest is what stands around it.
"""
