"""Speed beside the peers, in one run, as ratios: ``python -m benchmarks.plain`` and the like."""
