"""Summand inside other frameworks: einsum for NumPy, functions for PyTorch and JAX."""
