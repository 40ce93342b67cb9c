"""Text to reward. In come prompts and responses, out go rewards; what lies between is one module each.

Backbones, batches in which a prompt is encoded once, attention, heads, features, saving and exporting.
"""

import lazy_loader

# Names are in __init__.pyi: reading a record or a setting should not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
