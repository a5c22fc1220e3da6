"""How the book runs itself: claims, predictions, the runner, the site, the doctor.

Notebooks import `claim` and `predict` from here.
"""

from synthbook.course.claims import claim
from synthbook.course.display import predict

__all__ = ["claim", "predict"]
