from . import noise
