"""Tools on top of the engine: validation, conversion, summaries and plots."""
