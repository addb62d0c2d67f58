"""Figures that the operator reads from the pods themselves, faster than any scrape."""
