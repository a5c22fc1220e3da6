from . import datasets as datasets
from . import generators as generators
from .core.csv import load_table as load_table
from .core.schema_draft import draft_schema as draft_schema
from .core.table import Holdout as Holdout
from .core.table import Schema as Schema
from .core.table import Table as Table
from .evaluation.report import evaluate as evaluate
from .generators.diffusion import Diffusion as Diffusion
from .generators.gan import GAN as GAN
from .generators.registry import load as load
from .generators.tabular.copula import Copula as Copula
from .generators.tabular.ctgan import CTGAN as CTGAN
from .generators.tabular.diffusion import TabDDPM as TabDDPM
from .generators.tabular.trees import CART as CART
from .generators.tabular.trees import BoostedTrees as BoostedTrees
from .generators.tabular.tvae import TVAE as TVAE
from .generators.text.ngram import NGram as NGram
from .generators.text.transformer import Transformer as Transformer
from .generators.vae import VAE as VAE
from .privacy.attacks.release_audit import audit as audit
from .privacy.generators.dp_tvae import DpTvae as DpTvae
from .privacy.generators.dp_vae import DpVae as DpVae
from .privacy.generators.mst import Mst as Mst

__version__: str
