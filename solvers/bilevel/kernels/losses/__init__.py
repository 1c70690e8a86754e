"""Losses of linear models and their gradients, in one pass over the samples."""
