"""Loading a Hugging Face checkpoint folder: model and processor, through the Auto classes, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.runs import digest_file
from unmirage.schema import content_hash

_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")
_RECORDS = ("run.json", "training.json")
"""What `align` writes beside a model about how it was made: it holds dates and durations, and decides no answer."""


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """Model and processor; raises UserError where the folder does not hold both."""
    for needed, what in (("config.json", "a model"), ("processor_config.json", "a processor")):
        if not (folder / needed).is_file():
            raise UserError(
                f"{folder}: there is no {needed}, so this is not a checkpoint folder with {what}; "
                "save model and processor there with `save_pretrained`."
            )
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder)
        model = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise UserError(f"{folder}: the checkpoint cannot be loaded ({error}).") from error
    return model, processor


def revision(folder: Path) -> str:
    """Content hash of everything in a checkpoint folder that decides its answers: weights, configuration, tokenizer."""
    files = sorted(path for path in folder.glob("*") if path.suffix in _DECIDING and path.name not in _RECORDS)
    return content_hash([(path.name, digest_file(path)) for path in files])
