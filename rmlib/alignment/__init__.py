"""Policies trained with a reward, judges that write, and what they are worth. In come prompts, out go records."""

import lazy_loader

# Names are in __init__.pyi: reading a record or a setting should not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
