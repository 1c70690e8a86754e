"""Row systems of alternating minimisation: Numba (`cpu`) and CUDA (`gpu`) twins."""
