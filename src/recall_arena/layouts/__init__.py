"""Whole models in the layouts of other libraries: transformers' Mamba, and mamba-ssm's stacks."""

from recall_arena.layouts.folder import LAYOUTS, load_pretrained, save_pretrained

__all__ = ["LAYOUTS", "load_pretrained", "save_pretrained"]
