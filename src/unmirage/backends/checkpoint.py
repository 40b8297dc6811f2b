"""Loading a Hugging Face checkpoint folder: model and processor, through the Auto classes, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.runs import digest_file
from unmirage.schema import content_hash

_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")
_NEEDED = (("config.json", "model"), ("*.safetensors", "weights"), ("processor_config.json", "processor"))
_NOT_DECIDING = ("run.json", "training.json", "card.json")
"""What our own runs put beside a checkpoint: it does not change an answer."""


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """Model and processor; raises UserError where the folder does not hold both, or they cannot be loaded."""
    check_checkpoint(folder)
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, found = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # every loader raises its own kind for what it finds in the files
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{folder}: the checkpoint cannot be loaded ({type(error).__name__}: {reason}).") from error
    _check_processor(folder, processor)
    if absent := sorted(found["missing_keys"]):  # the library would make them up at random
        raise UserError(f"{folder}: the checkpoint lacks {len(absent)} weights, such as {absent[0]}; save it again.")
    return model, processor


def _check_processor(folder: Path, processor: Any) -> None:
    """Raises UserError where questions cannot be rendered or batched."""
    if not getattr(processor, "chat_template", None):
        raise UserError(f"{folder}: the processor has no chat template; save one with it as chat_template.jinja.")
    if processor.tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no padding token; set `pad_token` in its tokenizer_config.json.")


def check_checkpoint(folder: Path) -> None:
    """Raises UserError where the folder lacks a model or a processor."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of a Hugging Face checkpoint.")
    for pattern, what in _NEEDED:
        if not any(folder.glob(pattern)) and not _older_processor(folder, what):
            raise UserError(
                f"{folder}: there is no {pattern}, so this is not a checkpoint folder with its {what}; "
                "save model and processor there with `save_pretrained`."
            )


def _older_processor(folder: Path, what: str) -> bool:
    """Older checkpoints keep their processor's settings in `preprocessor_config.json`."""
    return what == "processor" and (folder / "preprocessor_config.json").is_file()


def revision(folder: Path) -> str:
    """Content hash of everything in a checkpoint folder that decides its answers: weights, configuration, tokenizer.

    Raises UserError where the folder lacks a model or a processor.
    """
    check_checkpoint(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in _DECIDING and path.name not in _NOT_DECIDING)
    return content_hash([(path.name, digest_file(path)) for path in files])
