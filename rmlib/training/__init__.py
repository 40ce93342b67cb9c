"""One loop, in one process or many. In come a model, pairs and settings; out comes a saved run."""

import lazy_loader

from rmlib.training import machine

machine.prepare()  # before the first tensor

# Names are in __init__.pyi: reading a record or a setting should not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
