"""Kernels that nobody wrote a library for, against the peers at their best."""
