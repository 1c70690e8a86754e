"""Kernel of the projections on polyhedral cones."""
