"""Benchmarks: `uv run python -m benchmarks` measures, prints and writes RESULTS.md; `--quick` is a smoke run."""
