"""Reads and scatters at computed places: solved, made affine, or brought together in rows."""
