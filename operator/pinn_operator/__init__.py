"""Rolls option-pricing models out, judges them, and rolls them back."""

__version__ = "0.1.0"
