"""What the program costs and withstands, measured: each script runs as `python -m benchmarks.NAME`."""
