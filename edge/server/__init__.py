"""An OpenAI-compatible HTTP server over a built engine.

    app = create_app(engine, ServerOptions(model_id="demo"))   # an ASGI application
    exit_code = serve(load, ServerOptions(...), ListenOptions(...))

Knows nothing of model files, catalogues and boards: the engine and a reading of the device are handed in.
Importing a module of this room needs the extra `server`; importing the package does not.
"""
