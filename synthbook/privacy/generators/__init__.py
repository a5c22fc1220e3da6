"""Generators that promise differential privacy, behind the same protocol as all others."""
