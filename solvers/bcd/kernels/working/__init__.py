"""Host kernels of the working-set solver: small problems, on the CPU wherever the data are."""
