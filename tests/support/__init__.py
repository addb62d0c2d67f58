"""Helpers shared by the end-to-end tests, the demo and the benchmarks. Nothing here is part of the product."""
