"""synthbook: the package behind an executable book on synthetic data."""

__version__ = "0.1.0"
