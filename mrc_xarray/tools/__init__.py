"""What users call besides the engine: validation, conversion, summaries and plots."""
