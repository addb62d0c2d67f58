"""Prices of European options: types, closed form, the network and the model built on it."""
