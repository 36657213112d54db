"""Speed compared with other packages, as ratios: ``python -m benchmarks.plain``, for example."""
