"""What every family stands on: the array door, kernels, monitor, results, certificates."""
