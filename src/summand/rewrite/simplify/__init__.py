"""Rewrite equations into cheaper ones, each in the light of how its operands were made."""
