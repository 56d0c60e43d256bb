"""Benchmarks of the offline server on the machine they run on. ``python -m bench`` prints JSON."""
