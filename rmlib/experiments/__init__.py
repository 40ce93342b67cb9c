"""Arms of the comparison: each is its parent plus one change. In come pairs and a preset, out go models and records."""

import lazy_loader

# Names are in __init__.pyi: reading a record or a setting should not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
