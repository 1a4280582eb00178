"""Stage 1: what the user writes, kept as a lazy graph, and the way from there to a Program."""
