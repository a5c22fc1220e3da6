"""Untrusted programs, run in a process that can only compute."""
