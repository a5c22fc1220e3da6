"""Section 7: what happens to a model that is refitted to its own output, and what prevents it."""
