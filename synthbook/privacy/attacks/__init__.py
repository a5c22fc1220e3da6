"""Attacks on models and on what they release, and what they prove."""
