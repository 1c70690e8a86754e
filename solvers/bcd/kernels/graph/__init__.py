"""Kernels on graphs: colours, forests, and message passing on them."""
