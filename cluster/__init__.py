"""A real one-node Kubernetes for development and tests, built from packages where there is no Docker engine.

Not part of the product. It uses the standard library alone, because it runs before any virtual environment exists:
``python3 -m cluster up`` from the repository root.
"""
