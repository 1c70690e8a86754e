"""Choosing blocks: largest scores, sums over blocks, a heap, pursuit."""
