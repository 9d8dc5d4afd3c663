"""Benchmarks of the package: times and memory against their bounds, and what compilation costs."""
