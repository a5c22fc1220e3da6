"""Section 6: is synthetic data real, varied, useful and new? Measures, their chance values, and one report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
