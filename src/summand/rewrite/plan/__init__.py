"""From a Program to a Plan: what is stored, in which layout, what runs together, in which tiles."""
