"""Prices options with a physics-informed neural network, over HTTP."""

__version__ = "0.1.0"
