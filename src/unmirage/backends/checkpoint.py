"""Loading a Hugging Face checkpoint folder: model and processor, through the Auto classes, safetensors only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmirage.errors import UserError
from unmirage.runs import digest_file
from unmirage.schema import content_hash

_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")
_NEEDED = (("config.json", "model"), ("*.safetensors", "weights"), ("processor_config.json", "processor"))
_NEEDED_ADAPTER = (("adapter_model.safetensors", "weights"), ("processor_config.json", "processor"))
_TORCHVISION = (
    " The processor of this model family needs torchvision; install the build of it that belongs to your torch."
)
_NOT_DECIDING = ("run.json", "training.json", "card.json")
"""What our own runs put beside a checkpoint: it does not change an answer."""


def load_checkpoint(folder: Path, **options: Any) -> tuple[Any, Any]:
    """Model and processor of a checkpoint folder, or of an adapter's folder, merged with the model it belongs to.

    `options` go to the model's loader. Raises UserError where the folder does not hold both, or they cannot be loaded.
    """
    check_checkpoint(folder)
    return load_model(folder, **options), load_processor(folder)


def load_processor(folder: Path) -> Any:
    """The processor alone; raises UserError where it cannot be loaded or cannot render a chat."""
    from transformers import AutoProcessor

    with _loading(folder):
        try:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            processor = _without_video(folder) if _is_about_video(error) else None
            if processor is None:
                raise
    _check_processor(folder, processor)
    return processor


def _is_about_video(error: Exception) -> bool:
    return any(sign in str(error).lower() for sign in ("video_processor", "video processor", "torchvision"))


def _without_video(folder: Path) -> Any | None:
    """The family's own processor class less its part for videos, which torchvision would be needed for; else None."""
    import transformers

    path = folder / "processor_config.json"
    name = json.loads(path.read_text()).get("processor_class") if path.exists() else None
    own = getattr(transformers, name or "", None)
    if own is None:
        return None
    kept = [part for part in own.get_attributes() if "video" not in part]
    images_only: Any = type(own.__name__, (own,), {"get_attributes": classmethod(lambda _: kept)})
    return images_only.from_pretrained(folder)


def load_model(folder: Path, **options: Any) -> Any:
    """The model alone; raises UserError where it cannot be loaded or lacks weights."""
    if base := adapted(folder):
        return merge_adapter(base, folder, **options)
    from transformers import AutoModelForImageTextToText

    with _loading(folder):
        model, found = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    if absent := sorted(found["missing_keys"]):  # the library would make them up at random
        raise UserError(f"{folder}: the checkpoint lacks {len(absent)} weights, such as {absent[0]}; save it again.")
    return model


def merge_adapter(base: Path, adapter: Path, **options: Any) -> Any:
    """The base model with an adapter's weights added to its own; added in float32, where nothing of them is lost."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError(f"{adapter} holds an adapter, which needs the package peft; install unmirage[lora].") from error
    import torch

    model = load_model(base, **options)
    stored = model.dtype
    with _loading(adapter):
        merged = PeftModel.from_pretrained(model.to(torch.float32), adapter).merge_and_unload()
    return merged.to(stored)


def decoder_depth(folder: Path) -> int:
    """How many layers the decoder has, by the configuration alone; raises UserError where that cannot be read."""
    from transformers import AutoConfig

    with _loading(folder):
        config = AutoConfig.from_pretrained(adapted(folder) or folder, local_files_only=True)
        depth: int = config.get_text_config(decoder=True).num_hidden_layers
    return depth


def adapted(folder: Path) -> Path | None:
    """The base model's folder where this one holds an adapter, else None."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    with _loading(folder):
        base = Path(json.loads(path.read_text())["base_model_name_or_path"])
    if not base.is_dir():
        raise UserError(f"{path}: the model that this adapter belongs to, {base}, is no folder here; correct the path.")
    return base


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Makes one sentence of whatever a loader raises for what it finds in the files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        hint = _TORCHVISION if _is_about_video(error) else ""
        what = f"{type(error).__name__}: {reason}"
        raise UserError(f"{folder}: the checkpoint cannot be loaded ({what}).{hint}") from error


def _check_processor(folder: Path, processor: Any) -> None:
    """Raises UserError where questions cannot be rendered or batched."""
    if not hasattr(processor, "tokenizer"):
        raise UserError(f"{folder}: there is a tokenizer but no processor for images; save the model's own one there.")
    if not getattr(processor, "chat_template", None):
        raise UserError(f"{folder}: the processor has no chat template; save one with it as chat_template.jinja.")
    if processor.tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no padding token; set `pad_token` in its tokenizer_config.json.")


def check_checkpoint(folder: Path) -> None:
    """Raises UserError where the folder lacks a model or a processor."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of a Hugging Face checkpoint.")
    needed = _NEEDED_ADAPTER if (folder / "adapter_config.json").is_file() else _NEEDED
    for pattern, what in needed:
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
    base = adapted(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in _DECIDING and path.name not in _NOT_DECIDING)
    own = [(path.name, digest_file(path)) for path in files]
    return content_hash([*own, ("base", revision(base))] if base else own)
