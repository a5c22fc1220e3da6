from .claims import claim as claim
from .display import predict as predict
