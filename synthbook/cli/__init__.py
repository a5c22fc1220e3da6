"""The `synthbook` command: one function for each verb."""

from synthbook.cli.main import app, main

__all__ = ["app", "main"]
