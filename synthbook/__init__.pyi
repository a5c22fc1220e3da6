from . import datasets as datasets
from . import generators as generators
from .core.table import Holdout as Holdout
from .core.table import Schema as Schema
from .core.table import Table as Table

__version__: str
