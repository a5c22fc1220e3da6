from .plots import BLACK as BLACK
from .plots import BLUE as BLUE
from .plots import GREEN as GREEN
from .plots import VERMILLION as VERMILLION
from .plots import new_axes as new_axes
from .plots import plot_images as plot_images
from .plots import subplots as subplots
from .schema_draft import draft_schema as draft_schema
