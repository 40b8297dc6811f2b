"""Align a model: supervised fine-tuning, unlearning, or the repair of a safety mirage."""

import logging

# transformers' trainer imports peft where that is installed, and peft imports bitsandbytes, which then advises on a
# package of kernels for 4-bit weights on CPUs: of no use to what is done here, and said by every process.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward from kernels-community")
)

from unmirage.align.config import AlignConfig  # noqa: E402
from unmirage.align.run import align, on_step  # noqa: E402

__all__ = ["AlignConfig", "align", "on_step"]
