"""What tests, demo and benchmarks share: a cluster of our own, a resource on it, traffic to it, random options."""
