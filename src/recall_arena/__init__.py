"""recall-arena: which sequence mixers can recall, how fast they learn it, how far it carries."""

__version__ = "0.1.0"
