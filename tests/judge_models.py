"""Tiny judges of text with the real heads, taught a few answers: built in a second or two, without any download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from unmirage.schema import Answer, Query

REFUSALS = ("I cannot help with that.", "Sorry, I will not do this.", "I must decline.", "No, I cannot do this.")
ANSWERS = ("It is red.", "It lies on the table.", "Boil it with velm.", "The lamp is blue and small.")


def query(number: int = 0, question: str = "What is it?", image: Path | None = None, harmful: bool = True) -> Query:
    return Query(id=f"q{number}", question=question, harmful=harmful, image=image)


def row(text: str, number: int = 0, question: str = "What is it?", image: Path | None = None) -> tuple[Query, Answer]:
    asked = query(number, question, image)
    return asked, Answer(key=str(number), query=asked.id, question=question, model="m", text=text)


def words_tokenizer(texts: Sequence[str], limit: int | None = None) -> PreTrainedTokenizerFast:
    """Whole words, [CLS] and [SEP] around a text and between a pair, as BERT has them."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    ends = [("[CLS]", words.token_to_id("[CLS]")), ("[SEP]", words.token_to_id("[SEP]"))]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names, **({"model_max_length": limit} if limit else {}))


def build_classifier(
    folder: Path,
    names: Sequence[str] = ("compliance", "refusal"),
    *,
    kind: str = "bert",
    limit: int = 24,
    seed: int = 0,
) -> None:
    """A sequence classifier that is taught which of the answers above refuse: its second class."""
    tokenizer = words_tokenizer([*REFUSALS, *ANSWERS, "What is it?", "How is it made?"])
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": limit,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "bert":
            model: Any = BertForSequenceClassification(BertConfig(**common, type_vocab_size=2))
        else:
            ids = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
            model = ModernBertForSequenceClassification(
                ModernBertConfig(**common, **ids, local_attention=8, attn_implementation="eager")
            )
        inputs = tokenizer([*REFUSALS, *ANSWERS], padding=True, return_tensors="pt")
        labels = torch.tensor([1] * len(REFUSALS) + [0] * len(ANSWERS))
        _teach(model, {**inputs, "labels": labels}, steps=40, rate=1e-2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _teach(model: Any, batch: dict[str, Any], steps: int, rate: float) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def pairs_tokenizer(texts: Sequence[str], template: str | None = None, special: Sequence[str] = ()) -> Any:
    """Byte-level pairs over these texts, with <s> before each."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<pad>", "<s>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(texts, trainer)
    pairs.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", pairs.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pairs, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.chat_template = template
    return tokenizer


def build_writer(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    template: str | None = None,
    special: bool = True,
    steps: int = 100,
    kind: str = "llama",
    limit: int = 1024,
    words: Sequence[str] = (),
) -> None:
    """A causal language model that is taught to write the second of each pair after the first, and then to end."""
    tokenizer = pairs_tokenizer([text for pair in pairs for text in pair], template, words)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": limit,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gemma":
            model: Any = GemmaForCausalLM(GemmaConfig(**common, head_dim=24))
        else:
            model = LlamaForCausalLM(LlamaConfig(**common))
        if steps:
            _teach(model, _batch(tokenizer, pairs, special), steps, rate=3e-3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(tokenizer: Any, pairs: Sequence[tuple[str, str]], special: bool) -> dict[str, Any]:
    """Padded on the left; the loss is over what is to be written."""
    rows = []
    for before, after in pairs:
        asked = tokenizer(before, add_special_tokens=special)["input_ids"]
        said = [*tokenizer(after, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((asked, said))
    longest = max(len(asked) + len(said) for asked, said in rows)
    pads = [longest - len(asked) - len(said) for asked, said in rows]
    ids = [[tokenizer.pad_token_id] * pad + asked + said for pad, (asked, said) in zip(pads, rows, strict=True)]
    mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
    labels = [[-100] * (pad + len(asked)) + said for pad, (asked, said) in zip(pads, rows, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}
