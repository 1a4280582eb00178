"""Summand: array programming as index notation over named dims, compiled as whole programs."""
