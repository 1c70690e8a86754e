"""Host kernels of proximal Newton steps: small problems, on the CPU wherever the data are."""
