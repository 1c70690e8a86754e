"""Speed, memory and robustness of `solvers`: an asv suite, and comparisons with named peers."""
