"""One alignment in one run folder: load a checkpoint, build the loss, train, save a plain Hugging Face folder.

run.json         what decides the run
training/        the Trainer's own checkpoints, from which a killed run goes on; gone when it is done
*.safetensors, config.json, processor_config.json, ...
training.json    the losses; written last, so its presence says that the folder is whole
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from unmirage.align.batches import Encoded, Paired, check_answer
from unmirage.align.config import AlignConfig
from unmirage.align.trainer import AlignTrainer, Reference, Term, collate_roles
from unmirage.backends.checkpoint import load_checkpoint, revision
from unmirage.backends.prompts import image_bytes
from unmirage.errors import UserError
from unmirage.runs import Run
from unmirage.schema import Query, content_hash

_NEARLY_FULL = 1_000_000
"""Bytes; with less than this left, a failure to save is put down to the disk."""


def align(
    model: Path,
    queries: Sequence[Query],
    config: AlignConfig,
    out: Path,
    *,
    general: Sequence[Query] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Trains the checkpoint folder `model` and saves the result, with its processor, to `out`.

    SFT trains on the references of `queries` and `general` together (Mixed-SFT). NPO and RMU forget the references of
    the harmful queries and retain the harmless ones and `general`. A run that was interrupted goes on from its last
    saved step; one that is done is left as it is. Raises UserError for a checkpoint or data that cannot be used.
    """
    parts = roles(queries, general, config)
    inputs = {"model": revision(model), "data": digest(parts)}
    with Run.open(out, "align", config.model_dump(), inputs) as run:
        if not (out / "training.json").exists():
            history = _train(model, parts, config, out, callbacks)
            run.write_json("training.json", {"schema": 1, "config": config.model_dump(), "history": history})
        shutil.rmtree(out / "training", ignore_errors=True)
    return out


def _train(
    model: Path,
    parts: dict[str, list[Query]],
    config: AlignConfig,
    out: Path,
    callbacks: Sequence[TrainerCallback],
) -> list[dict[str, Any]]:
    set_seed(config.seed)
    network, processor = load_checkpoint(model)
    stored = network.dtype
    # Adam's steps are lost in the rounding of half precision, and float16 overflows: train in float32.
    network.float()
    check_layer(network, config)
    freeze(network, config)
    terms, padding = config.terms(), processor.tokenizer.pad_token_id
    data = {role: Encoded(processor, rows) for role, rows in parts.items()}
    settings = arguments(config, out / "training")
    network.to(settings.device)  # before the references are made: on the same device as the policy's
    trainer = AlignTrainer(
        model=network,
        args=settings,
        terms=terms,
        references=references(terms, network, data, padding, config.batch_size),
        train_dataset=Paired(data, config.seed),
        data_collator=partial(collate_roles, padding=padding),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)  # it writes to standard output, which belongs to the caller
    saved = last_checkpoint(out / "training")
    if saved is not None:
        restore(network, saved)
    with disk_errors(out):
        trainer.train(resume_from_checkpoint=saved)
        network.to(stored).save_pretrained(out)
        processor.save_pretrained(out)
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Makes a UserError of what torch and safetensors raise on a full disk, which is no OSError of theirs."""
    try:
        yield
    except Exception as error:
        full = shutil.disk_usage(out).free < _NEARLY_FULL or "No space left" in str(error)
        if not full:
            raise
        raise UserError(
            f"{out}: no space is left on the disk; nothing that was saved before is lost. "
            "Free some space and run the same command again."
        ) from error


def digest(parts: dict[str, list[Query]]) -> str:
    """Content hash of what is trained on: questions, answers and image bytes."""
    rows = [
        (role, query.question, query.reference, _image_digest(query))
        for role, queries in parts.items()
        for query in queries
    ]
    return content_hash(rows)


def _image_digest(query: Query) -> str | None:
    return content_hash(image_bytes(query.image, query.id)) if query.image else None


def roles(queries: Sequence[Query], general: Sequence[Query], config: AlignConfig) -> dict[str, list[Query]]:
    """Which queries play which part in the method's loss."""
    if config.method == "sft":
        parts = {"train": [*queries, *general]}
    else:
        harmless = [query for query in queries if not query.harmful]
        parts = {"forget": [query for query in queries if query.harmful], "retain": [*harmless, *general]}
    for role, rows in parts.items():
        if not rows:
            raise UserError(f"the {role} set is empty; {config.method} needs at least one {role} row.")
        for query in rows:
            check_answer(query)
    return parts


def check_layer(network: Any, config: AlignConfig) -> None:
    """Raises UserError where RMU's layer does not exist."""
    count = len(network.get_decoder().layers)
    if config.method == "rmu" and config.layer >= count:
        raise UserError(f"layer {config.layer} does not exist: this model's decoder has layers 0 to {count - 1}.")


def freeze(network: Any, config: AlignConfig) -> None:
    """Leaves only the chosen part trainable, before any optimizer is built."""
    network.requires_grad_(config.train != "rmu")
    if config.train == "decoder":
        network.get_encoder(modality="image").requires_grad_(False)
    if config.train == "rmu":
        layers: nn.ModuleList = network.get_decoder().layers
        for layer in layers[max(0, config.layer - 2) : config.layer + 1]:
            layer.requires_grad_(True)


def references(
    terms: Sequence[Term], network: nn.Module, parts: dict[str, Encoded], padding: int, batch_size: int
) -> dict[int, Reference]:
    """The references that the terms need, by the term's number; a term without need never builds one."""
    network.eval()
    return {
        number: Reference(term, network, parts[term.role], padding, batch_size)
        for number, term in enumerate(terms)
        if term.objective.needs_reference
    }


def arguments(config: AlignConfig, work: Path) -> TrainingArguments:
    """The Trainer's settings."""
    return TrainingArguments(
        output_dir=str(work),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.lr,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        seed=config.seed,
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def last_checkpoint(work: Path) -> str | None:
    """The newest saved step of an interrupted run, if any; one that was cut off while it was saved does not count."""
    whole = (path.parent for path in work.glob("checkpoint-*/trainer_state.json"))  # the Trainer writes it last
    steps = sorted(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]))
    return str(steps[-1]) if steps else None


def restore(network: Any, saved: str) -> None:
    """Puts the weights of a saved step into the model.

    The Trainer alone does not: it saves under the names that files have on the Hub, reads them back without renaming,
    and only warns that none of them fits.
    """
    weights = type(network).from_pretrained(saved, dtype=network.dtype, use_safetensors=True).state_dict()
    network.load_state_dict(weights)


def on_step(progress: Callable[[int, int], None]) -> TrainerCallback:
    """A callback that says how many of all steps are done, after each."""
    return _OnStep(progress)


class _OnStep(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps)
