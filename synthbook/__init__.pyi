from . import datasets as datasets
from . import generators as generators
from .core.table import Holdout as Holdout
from .core.table import Schema as Schema
from .core.table import Table as Table
from .evaluation.report import evaluate as evaluate
from .generators.registry import load as load
from .generators.tabular.copula import Copula as Copula
from .privacy.attacks.release_audit import audit as audit

__version__: str
