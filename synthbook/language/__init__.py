"""Section 4: language models as data engines, and what stands between their text and a training set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
