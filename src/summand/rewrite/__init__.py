"""Passes over Programs, the last of which cuts one into kernels."""
