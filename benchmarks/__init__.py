"""Benchmarks: asv suites (bench_*.py), and peers/, which runs other libraries and ours side by side."""
