"""Section 5: privacy that is engineered (`generators`), accounted (here) and attacked (`attacks`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
