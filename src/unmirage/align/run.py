"""One alignment in one run folder: load a checkpoint, build the loss, train, save a plain Hugging Face folder.

run.json         what decides the run
twins.jsonl      rows that were made of the data's by exchanging opening words, where the method has such
training/        the Trainer's own checkpoints, from which a killed run goes on; gone when it is done
cache/           reference signals and image features; gone when it is done, unless they lie in a folder of the user's
*.safetensors, config.json, processor_config.json, ...
training.json    the losses and notes; written last, so its presence says that the folder is whole
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from unmirage.align import alternatives, checks, parts, projection, saving
from unmirage.align.alternatives import Report
from unmirage.align.batches import Encoded, Paired, collate_roles, encode_all, group_sizes
from unmirage.align.caching import Keys, references_for, use_features
from unmirage.align.config import AlignConfig
from unmirage.align.data import Asked, Parts, digest, parts_of
from unmirage.align.failures import disk_errors, memory_errors
from unmirage.align.groups import Cues
from unmirage.align.processes import by_first, check_launch, here, is_first, on_cpu, shard_by_layer, together, unsharded
from unmirage.align.references import Asking
from unmirage.align.roles import MADE
from unmirage.align.signals import Switches
from unmirage.align.terms import terms_of
from unmirage.align.trainer import AlignTrainer
from unmirage.align.upweight import repeated
from unmirage.backends.checkpoint import decoder_depth, load_model, load_processor, revision
from unmirage.runs import Run, write_text
from unmirage.schema import Query

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What one run is about."""

    model: Path
    config: AlignConfig
    out: Path
    cache: Path
    queries: Sequence[Query]
    general: Sequence[Query]
    preferred: Sequence[Query]
    revision: str
    tell: Tell
    report: Report

    @property
    def training(self) -> Path:
        """Where the Trainer saves."""
        return self.out / "training"

    def inputs(self) -> dict[str, str]:
        """What identifies the run beside its configuration; how many processes there are decides the whole batch."""
        more = {"general": self.general, "preferred": self.preferred}
        found = {"model": self.revision, "data": digest(self.queries)}
        found |= {name: digest(rows) for name, rows in more.items() if rows}
        return found | ({"processes": str(here().num_processes)} if here().num_processes > 1 else {})

    def parts(self, asked: Asked) -> Parts:
        """The rows of each role."""
        return parts_of(self.config, self.queries, self.general, self.preferred, asked)

    def encoded(self, processor: Any, parts: Parts) -> dict[str, Encoded]:
        """The rows of each role as samples."""
        cues = Cues.of(self.config.refusal_words, self.config.compliance_words)
        return encode_all(processor, parts.rows, self.config.max_length, cues)


def align(
    model: Path,
    queries: Sequence[Query],
    config: AlignConfig,
    out: Path,
    *,
    general: Sequence[Query] = (),
    preferred: Sequence[Query] = (),
    cache: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    tell: Tell = warnings.warn,
    report: Report = lambda _what, _done, _planned: None,
) -> Path:
    """Trains the checkpoint folder `model` and saves the result, with its processor, to `out`.

    Which rows play which part follows from the method's terms (`methods`); `preferred` holds better answers to the
    harmful questions, by id, for preference terms. Reference signals and image features lie in `cache` and are used by
    every run from the same start; without it they lie in `out` and go when the run is done. A run that was interrupted
    goes on from its last saved step; one that is done is left as it is. Started by `accelerate launch` or `torchrun`,
    it trains in all processes and writes from the first. `tell` gets warnings about the data, `report` how far the
    model has been asked where answers of its own are needed; steps are told to `callbacks` (`on_step`). Raises
    UserError for a checkpoint or data that cannot be used, and where the loss or the memory fails.
    """
    job = Job(model, config, out, cache or out / "cache", queries, general, preferred, revision(model), tell, report)
    check_launch()
    parts.check_layers(decoder_depth(model), config)
    checks.check_rows(job.parts(Asked(_unsampled, _unsampled)).rows)
    with ExitStack() as stack:
        run = by_first(
            lambda: stack.enter_context(Run.open(out, "align", config.model_dump(mode="json"), job.inputs()))
        )
        if not together((out / "training.json").exists())[0]:
            record = _train(job, callbacks)
            by_first(lambda: _finish(run, {"schema": 1, "config": config.model_dump(mode="json"), **record}))
        if run is not None:
            shutil.rmtree(job.training, ignore_errors=True)
            if cache is None:
                shutil.rmtree(job.cache, ignore_errors=True)
    return out


def _unsampled(queries: Sequence[Query]) -> list[str]:
    """Stands for better answers that are not sampled yet."""
    return ["..."] * len(queries)


def _finish(run: Run | None, record: dict[str, Any]) -> None:
    """Says that the folder is whole."""
    assert run is not None
    run.write_json("training.json", record)


def _train(job: Job, callbacks: Sequence[TrainerCallback]) -> dict[str, Any]:
    """Trains and saves; returns what `training.json` says of it."""
    config = job.config
    with memory_errors(config), disk_errors(job.out):
        processor = load_processor(job.model)
        answers = alternatives.answerer(job.model, config, job.out, job.report)
        parts_ = job.parts(Asked(_unsampled, answers))
        data = job.encoded(processor, parts_)  # before the weights: they take longest
        start = _load(job)
        if "preference" in data and config.preferred == "sampled":
            sample = alternatives.sampler(start.network, processor, config, job.out, job.report)
            parts_ = job.parts(Asked(sample, answers))
            data = job.encoded(processor, parts_)
        by_first(lambda: _keep(parts_, job.out))
        notes = [*parts_.notes(), *checks.check_answers(data, config.max_length), *_doubts(job, data)]
        trainer = _trainer(job, start, processor, data, notes, callbacks)
        if is_first():
            for note in notes:
                job.tell(note)
        if config.finish == "project":
            projection.check_writers(
                data["pairs"], config.measuring()[0].layers()[0], _asking(config, start, processor)
            )
        saving.train(trainer, job.training)
        change = _projection(trainer, data, _asking(config, start, processor), config)
        saving.save(trainer, processor, start.stored, job.model, job.out, config, change)
    counts = {role: len(part) for role, part in data.items()}
    made = {role: one.counts() for role, one in parts_.made.items()}
    return {"notes": notes, "rows": counts, "twins": made, "history": trainer.state.log_history}


def _projection(
    trainer: AlignTrainer, data: Mapping[str, Encoded], asking: Asking, config: AlignConfig
) -> Callable[[saving.State], saving.State]:
    """What finish=project does to the weights; nothing where it is not asked for."""
    if config.finish != "project":
        return lambda state: state
    asking = replace(asking, model=trainer.model_wrapped)
    (term,) = [term for term in terms_of(config) if term.objective.name == "cue-direction"]
    (last,) = term.layers
    direction = projection.measured(data["pairs"], term, asking)
    names = list(projection.writers(trainer.model_wrapped, last))
    return lambda state: projection.projected(state, names, direction)


def _keep(parts_: Parts, out: Path) -> None:
    """Writes down the rows that were made, once: they come from settings and data alone, or from stored answers."""
    path = out / "twins.jsonl"
    if parts_.made and not path.exists():
        lines = [
            {"role": role, "id": one.query.id, "origin": one.origin.id, "harmful": one.query.harmful, "word": one.word}
            | {"question": one.query.question, "answer": one.query.reference}
            for role, made in parts_.made.items()
            for one in made.twins
        ]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _doubts(job: Job, data: Mapping[str, Encoded]) -> list[str]:
    """What of the data should be known before training; raises UserError for pairs that cannot serve."""
    config = job.config
    found = [checks.confounding({role: part.queries for role, part in data.items()})]
    found.append(checks.unstirred(config.steps, config.warmup))
    if "pairs" in data:
        found.append(checks.uneven(data["pairs"]))
    if config.measuring():
        found.append(checks.unmoved(data["pairs"], needed=config.finish == "project"))
    if set(config.roles()) & set(MADE):
        found += checks.one_sided(config.roles(), job.queries, job.general)
        found += checks.unheard(job.queries, config.refusal_words, config.compliance_words)
    return [note for note in found if note]


@dataclass(frozen=True, slots=True)
class Start:
    """The network before training, ready and on its device. `stored`: the type that its weights are stored in."""

    network: Any
    stored: torch.dtype
    bf16: bool
    settings: TrainingArguments


def _load(job: Job) -> Start:
    set_seed(job.config.seed)
    network = load_model(job.model, **parts.loading_options(job.config))
    parts.keep_unpacked(network)
    shard_by_layer(network)
    stored = network.dtype
    bf16 = parts.uses_bf16(job.config, stored)
    network = parts.prepare(network, job.config)
    parts.set_dtypes(network, bf16)
    settings = arguments(job.config, job.training, bf16)
    network.to(settings.device)  # before references are made: on the same device as the policy's
    return Start(network, stored, bf16, settings)


def _trainer(
    job: Job,
    start: Start,
    processor: Any,
    data: Mapping[str, Encoded],
    notes: list[str],
    callbacks: Sequence[TrainerCallback],
) -> AlignTrainer:
    """The trainer with everything that is computed before the first step; adds to the notes."""
    config, asking = job.config, _asking(job.config, start, processor)
    terms, keys = terms_of(config), Keys(job.cache, job.revision)
    notes += filter(None, [use_features(data, asking, keys) if config.image_cache else None])
    extra, told = repeated(data, asking, config, job.training)
    notes += told + checks.empty_groups(terms, data)
    trainer = AlignTrainer(
        model=start.network,
        args=start.settings,
        terms=terms,
        references=references_for(terms, data, asking, keys, config),
        ids={role: [query.id for query in part.queries] for role, part in data.items()},
        switches=asking.switches,
        sizes={role: group_sizes(part) for role, part in data.items()},
        train_dataset=Paired(data, config.seed, extra),
        data_collator=partial(collate_roles, padding=asking.padding),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    notes += unsharded(trainer.is_fsdp_enabled)
    trainer.remove_callback(PrinterCallback)  # it writes to standard output, which belongs to the caller
    return trainer


def _asking(config: AlignConfig, start: Start, processor: Any) -> Asking:
    return Asking(
        start.network,
        processor.tokenizer.pad_token_id,
        config.batch_size,
        Switches(config.truncate, config.answer_head, config.share_forward),
        partial(torch.autocast, start.settings.device.type, torch.bfloat16, enabled=start.bf16),
        "bfloat16" if start.bf16 else "float32",
    )


def arguments(config: AlignConfig, work: Path, bf16: bool = False) -> TrainingArguments:
    """The Trainer's settings."""
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"  # a launcher's own choice would differ
    return TrainingArguments(
        output_dir=str(work),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.lr,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
        seed=config.seed,
        save_steps=config.save_steps,
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=on_cpu(),
        ddp_find_unused_parameters=True,  # which parameters a loss reaches depends on its terms
    )


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
