"""Finding the few tools that a request needs among thousands, and offering them to a model."""
