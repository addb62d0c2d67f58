"""Trains the network on the pricing equation alone and certifies the result."""
