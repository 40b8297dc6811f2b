"""Align a model: supervised fine-tuning, or unlearning by NPO or RMU."""

from unmirage.align.config import AlignConfig
from unmirage.align.run import align, on_step

__all__ = ["AlignConfig", "align", "on_step"]
