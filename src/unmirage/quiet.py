"""Libraries that keep to themselves, in the command's process and in its workers."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Keeps the libraries' own bars and advice out of our output; warnings and errors stay."""
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read by torch once: each process would give advice
    # peft imports it, and it then advises on other packages; and it tells of each 8-bit product that inputs are cast.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)  # from one library to another
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
