"""Judges' own models, from local folders: loaded once, run in batches, and known by a hash of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from unmirage.errors import UserError
from unmirage.runs import digest_file
from unmirage.schema import content_hash

_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")
_NOT_DECIDING = ("run.json", "training.json", "card.json")
"""What our own runs put beside a checkpoint."""

_Row = TypeVar("_Row")
_Found = TypeVar("_Found")


def digest(folder: Path) -> str:
    """Content hash of weights, configuration and tokenizer; UserError where the folder holds no model."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of the judge's Hugging Face checkpoint.")
    for pattern in ("config.json", "*.safetensors"):
        if not any(folder.glob(pattern)):
            raise UserError(
                f"{folder}: there is no {pattern}, so this is not the folder of a judge's model; "
                "save model and tokenizer there with `save_pretrained`."
            )
    files = sorted(path for path in folder.iterdir() if path.suffix in _DECIDING and path.name not in _NOT_DECIDING)
    return content_hash([(path.name, digest_file(path)) for path in files])


def has_processor(folder: Path) -> bool:
    """Whether the folder's model takes pictures."""
    return any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))


def load_text_model(folder: Path, auto: str) -> tuple[Any, Any]:
    """Model, by one of transformers' Auto classes, and tokenizer; in evaluation mode, on a GPU where there is one.

    Raises UserError where they cannot be loaded or weights are missing, which the library would make up at random.
    """
    import transformers

    with _loading(folder):
        model, found = getattr(transformers, auto).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if absent := sorted(found["missing_keys"]):
        raise UserError(
            f"{folder}: the judge's model lacks {len(absent)} weights, such as {absent[0]}; it was saved without the "
            "head that judges, or is a model of another kind."
        )
    return model.eval().to(_device()), tokenizer


def load_vision_model(folder: Path) -> tuple[Any, Any]:
    """Model and processor, through the loader of the models under test; raises UserError as it does."""
    from unmirage.backends.checkpoint import load_checkpoint

    model, processor = load_checkpoint(folder)
    return model.eval().to(_device()), processor


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Makes one sentence of whatever a loader raises for what it finds in the files."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{folder}: the judge's model cannot be loaded ({type(error).__name__}: {reason}).") from error


def in_batches(rows: Sequence[_Row], size: int, work: Callable[[Sequence[_Row]], list[_Found]]) -> Iterator[_Found]:
    """What `work` finds for each row, in order; a batch that memory does not hold is halved, and so are all later ones.

    Raises UserError where memory does not hold a single row.
    """
    import torch

    from unmirage.backends.decoding import is_out_of_memory

    start = 0
    while start < len(rows):
        found: list[_Found] | None = None
        try:
            found = work(rows[start : start + size])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise UserError("the memory does not hold the judge and one answer; take a smaller judge.") from error
        if found is None:
            size //= 2
            torch.cuda.empty_cache()  # not before here: while an error is handled, it keeps the failed call's tensors
            continue
        yield from found
        start += size


def room(model: Any, tokenizer: Any) -> int | None:
    """The most tokens that the model reads; None where neither model nor tokenizer says."""
    config = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    # A tokenizer without a limit says 1e30.
    known = [int(limit) for limit in limits if limit and 0 < limit < 10**9]
    # RoBERTa and its kin number positions from behind the padding's id on.
    if known and config.model_type in ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet"):
        known[0] -= (config.pad_token_id or 0) + 1
    return min(known) if known else None


def generate(model: Any, inputs: Any, max_new_tokens: int, tokenizer: Any) -> list[str]:
    """Greedy continuations of a batch that is padded on the left, without special tokens."""
    import torch
    from transformers import GenerationConfig

    given = model.generation_config
    kept = {name: getattr(given, name) for name in ("bos_token_id", "eos_token_id")}
    pad = given.pad_token_id if given.pad_token_id is not None else tokenizer.pad_token_id
    greedy = GenerationConfig(**kept, pad_token_id=pad, do_sample=False, max_new_tokens=max_new_tokens)
    inputs = inputs.to(model.device)
    with torch.inference_mode():
        out = model.generate(**inputs, generation_config=greedy)
    new = out[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def pad_on_the_left(tokenizer: Any) -> None:
    """As generation needs it; where there is no padding token, the end token serves, which the mask hides."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
