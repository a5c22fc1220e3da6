"""Where the book lies on disk: the checkout's root, its notebooks, and the folder that may be thrown away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from synthbook.core.errors import InvalidArgument


@dataclass(frozen=True)
class Project:
    """A checkout of the book."""

    root: Path

    @property
    def notebooks(self) -> Path:
        """The committed notebooks, the only source."""
        return self.root / "notebooks"

    @property
    def build(self) -> Path:
        """Everything below it is made by a command and may be deleted."""
        return self.root / "build"

    @property
    def copies(self) -> Path:
        """The executed copies."""
        return self.build / "notebooks"

    def copy_of(self, source: Path) -> Path:
        """Where the executed copy of a notebook lies."""
        return self.copies / source.name

    def failed_copy_of(self, source: Path) -> Path:
        """Where the partly executed copy of a notebook that failed lies."""
        return self.copies / f"{source.stem}.failed.ipynb"

    def sources(self) -> list[Path]:
        """The committed notebooks in the order of their names."""
        return sorted(self.notebooks.glob("*.ipynb"))

    def select(self, only: Iterable[str] = ()) -> list[Path]:
        """The notebooks whose names start with one of the prefixes; all of them when there is no prefix.

        Raises `InvalidArgument` for a prefix that no notebook starts with, and when there is no notebook at all.
        """
        sources, prefixes = self.sources(), tuple(only)
        if not sources:
            raise InvalidArgument("folder", str(self.notebooks), "a folder that holds at least one notebook (*.ipynb)")
        names = ", ".join(source.stem for source in sources)
        for prefix in prefixes:
            if not prefix or not any(source.name.startswith(prefix) for source in sources):
                raise InvalidArgument("only", prefix, f"the beginning of a notebook's name ({names})")
        return [source for source in sources if not prefixes or source.name.startswith(prefixes)]


def find_project(start: Path | None = None) -> Project:
    """The project that `start` (default: the current folder) lies in.

    Raises `InvalidArgument` when neither the folder nor one above it holds notebooks/ and pyproject.toml.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return Project(folder)
    raise InvalidArgument(
        "folder", str(start), "a folder inside the book's checkout, which holds notebooks/ and pyproject.toml"
    )
