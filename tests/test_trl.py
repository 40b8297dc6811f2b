"""DPO and fine-tuning give the numbers of TRL's trainers, from one and the same batch; skipped where TRL is absent."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unmirage.align.objectives.ascent import AscentConfig, ascent
from unmirage.align.objectives.ce import CEConfig, ce
from unmirage.align.objectives.dpo import DPOConfig, dpo
from unmirage.align.signals import AnswerLogProbs, Preference, answer_log_probs, halves

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

WORDS = "what is this object how made a red tin by boiling it over hot coals soaking sorry no"
ROWS = [
    ("what is this object", " a red tin", " sorry"),
    ("how is it made", " sorry no", " by boiling it over hot coals"),
    ("how is this", " no", " by soaking it"),
]
"""Question, better answer, other answer: all of unequal lengths."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(["<pad>", "<unk>", "<eos>", *WORDS.split()])}
    plain = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = Sequence([WhitespaceSplit(), Split("<eos>", "isolated")])
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", padding_side="right"
    )


@pytest.fixture(scope="module")
def start(tokenizer: Any) -> nn.Module:
    """A tiny Llama before training."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model.eval()


@pytest.fixture(scope="module")
def trained(start: nn.Module) -> nn.Module:
    """The same some steps later: every weight has moved a little."""
    policy = deepcopy(start)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def _options(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(ROWS),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }


def _ours(batch: dict[str, Tensor], answers: Tensor) -> dict[str, Tensor]:
    """The batch that TRL formed, as our code takes it."""
    ids = batch["input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": batch["attention_mask"],
        "labels": ids.masked_fill(~answers.bool(), -100),
        "image_mask": torch.zeros_like(ids, dtype=torch.bool),
    }


def _same(model: nn.Module, loss: Tensor, other: nn.Module, theirs: Tensor) -> None:
    """The values agree, and all gradients do."""
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.autograd.backward(loss)
    torch.autograd.backward(theirs)
    for (name, mine), its in zip(model.named_parameters(), other.parameters(), strict=True):
        assert mine.grad is not None, name
        assert its.grad is not None, name
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_is_trls(beta: float, start: nn.Module, trained: nn.Module, tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": question, "chosen": better, "rejected": other} for question, better, other in ROWS]
    trainer = trl.DPOTrainer(
        model=deepcopy(trained),
        ref_model=deepcopy(start),
        args=trl.DPOConfig(beta=beta, **_options(tmp_path)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["input_ids"]) == 2 * len(ROWS)
    assert len(set(batch["completion_mask"].sum(dim=1).tolist())) > 2
    model, ours = deepcopy(trained), _ours(batch, batch["completion_mask"])
    policy, reference = halves(answer_log_probs(model, ours)), halves(_fixed(start, ours))
    loss = dpo(policy, reference, DPOConfig(beta=beta)).mean()
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    assert abs(loss.item() - dpo(reference, reference, DPOConfig(beta=beta)).mean().item()) > 0.01
    _same(model, loss, trainer.model, theirs)


def _fixed(model: nn.Module, batch: dict[str, Tensor]) -> AnswerLogProbs:
    with torch.no_grad():
        return answer_log_probs(model, batch)


def _by_tokens(policy: AnswerLogProbs) -> Tensor:
    """The mean over all tokens of the batch, as TRL takes it: minus what `ascent` calls "batch_mean"."""
    return -ascent(policy, None, AscentConfig(reduction="batch_mean")).mean()


def _by_samples(policy: AnswerLogProbs) -> Tensor:
    """Our own mean over samples, weighted by their tokens, is the same number."""
    tokens = policy.mask.sum(dim=1)
    return (ce(policy, None, CEConfig()) * tokens).sum() / tokens.sum()


@pytest.mark.parametrize("mean", [_by_tokens, _by_samples])
def test_fine_tuning_is_trls(
    mean: Callable[[AnswerLogProbs], Tensor], trained: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": question, "completion": better} for question, better, _ in ROWS]
    trainer = trl.SFTTrainer(
        model=deepcopy(trained),
        args=trl.SFTConfig(completion_only_loss=True, **_options(tmp_path)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model, ours = deepcopy(trained), _ours(batch, batch["labels"] != -100)
    assert len(set((ours["labels"] != -100).sum(dim=1).tolist())) > 1
    loss = mean(answer_log_probs(model, ours))
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, dict(batch))
    _same(model, loss, trainer.model, theirs)


def test_trls_dpo_weighs_answers_by_sums(start: nn.Module, trained: nn.Module, tokenizer: Any, tmp_path: Path) -> None:
    """With "mean" ours is another number: that option is not TRL's default."""
    rows = [{"prompt": question, "chosen": better, "rejected": other} for question, better, other in ROWS]
    trainer = trl.DPOTrainer(
        model=deepcopy(trained),
        ref_model=deepcopy(start),
        args=trl.DPOConfig(**_options(tmp_path)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, dict(batch)).item()
    ours = _ours(batch, batch["completion_mask"])
    pair: tuple[Preference, Preference] = halves(_fixed(trained, ours)), halves(_fixed(start, ours))
    assert dpo(*pair, DPOConfig()).mean().item() == pytest.approx(theirs, rel=1e-5)
    assert dpo(*pair, DPOConfig(reduction="mean")).mean().item() != pytest.approx(theirs, rel=1e-2)
