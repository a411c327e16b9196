"""Benchmarks: one subject per fresh process, ratios within one run; see README.md beside this file."""
