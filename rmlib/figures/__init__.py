"""Tables and pictures, from records alone: in comes a file of records, out come figures and tables of it."""

import lazy_loader

# Names are in __init__.pyi: a table should not wait for what draws pictures.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
