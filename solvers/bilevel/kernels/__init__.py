"""Kernels of bilevel problems, in folders by what needs them."""
