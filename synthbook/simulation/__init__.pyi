import typing

from .cues import CueModel as CueModel
from .labels import annotate as annotate
from .localizer import full_image_batches as full_image_batches
from .localizer import load_pretrained as load_pretrained
from .localizer import predict_corners as predict_corners
from .localizer import train_corner_net as train_corner_net
from .randomize import DOMAINS as DOMAINS
from .randomize import FACTORS as FACTORS
from .randomize import PROXY_TARGET as PROXY_TARGET
from .randomize import Domain as Domain
from .randomize import sample_params as sample_params
from .render import Renderer as Renderer
from .scene import Body as Body
from .scene import Camera as Camera
from .scene import CameraEffects as CameraEffects
from .scene import Light as Light
from .scene import SceneParams as SceneParams
from .scene import look_at as look_at

def import_pybullet() -> typing.Any: ...
