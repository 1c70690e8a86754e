"""Kernel of the LARS homotopy."""
