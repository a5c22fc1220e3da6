"""A small book in a temporary folder, and photographs to locate a cube in."""

from tests.course.conftest import book, shown
from tests.simulation.conftest import photo

__all__ = ["book", "photo", "shown"]
