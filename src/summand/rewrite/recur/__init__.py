"""Recurrences: what leaves their loop, what is folded in it, what its states are."""
