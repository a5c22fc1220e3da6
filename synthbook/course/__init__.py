"""How the book runs itself: claims, predictions, the runner, the site, the doctor.

Notebooks import `claim` and `predict` from here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
