"""The network simplex method on a few edges of a transport problem; on the host only."""
