"""Goldens: hashes of what the package computes, which a change of names or places must leave as they are."""
