"""The base model's card: how it was made, and how well it does on pictures that it never saw."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from unmirage.runs import digest_file, write_json, write_text
from unmirage.sandbox import language
from unmirage.sandbox.language import Asked
from unmirage.sandbox.pretrain import Progress, Recipe, pretrain
from unmirage.sandbox.scenes import Scene, draw, sample_scene
from unmirage.sandbox.vlm import IMAGE_TOKENS, save
from unmirage.sandbox.world import World
from unmirage.schema import content_hash

_BATCH = 120


class Card(BaseModel):
    """The content of `card.json`. Accuracies are shares of answers that are exactly right, on `questions` questions.

    `recipe_hash` and `world_hash` name what the weights were made from, `weights_sha256` the file of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    version: int = Field(default=1, alias="schema")
    recipe: dict[str, Any]
    recipe_hash: str
    world_hash: str
    weights_sha256: str = ""
    parameters: int
    questions: int
    accuracy: float
    harmful: float
    harmless: float
    by_opener: dict[str, float]
    versions: dict[str, str]


def make_base(recipe: Recipe, out: Path, progress: Progress) -> Card:
    """Pretrains, examines and saves a base model with its card; returns the card."""
    model, processor = pretrain(recipe, progress)
    card = examine(model, processor, recipe)
    save(model, processor, out)
    card = card.model_copy(update={"weights_sha256": digest_file(out / "model.safetensors")})
    write_json(out / "card.json", card.model_dump(mode="json", by_alias=True))
    write_text(out / "README.md", _prose(card))
    return card


def examine(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: Recipe, per_opener: int = _BATCH
) -> Card:
    """Asks `per_opener` questions with each opening word about fresh pictures and counts exact answers."""
    right: dict[str, list[bool]] = defaultdict(list)
    for opener, asked, answer in _exam(model, processor, recipe, per_opener):
        correct = _exact(asked, opener, answer, recipe.world)
        right[opener].append(correct)
        right["harmful" if asked.harmful else "harmless"].append(correct)
    everything = [one for opener in language.OPENERS for one in right[opener]]
    return Card(
        recipe=asdict(recipe),
        recipe_hash=recipe.hash,
        world_hash=world_hash(recipe.world),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        questions=len(everything),
        accuracy=_mean(everything),
        harmful=_mean(right["harmful"]),
        harmless=_mean(right["harmless"]),
        by_opener={opener: _mean(right[opener]) for opener in language.OPENERS},
        versions={name: version(name) for name in ("torch", "transformers", "pillow", "tokenizers")},
    )


def world_hash(world: World) -> str:
    """Content hash of everything that the world says and shows: its language, and some pictures pixel by pixel."""
    rng = random.Random("world hash")
    pictures = [draw(sample_scene(rng, world.things), world.salience).tobytes() for _ in range(24)]
    return content_hash(language.corpus(world), *pictures)


def _exam(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: Recipe, per_opener: int
) -> Iterator[tuple[str, Asked, str]]:
    """The same questions for every opener, so that openers differ in nothing else."""
    rng = random.Random(f"exam/{recipe.seed}")
    world = recipe.world
    scenes = [sample_scene(rng, world.things) for _ in range(per_opener)]
    asked = [_question(rng, scene, number, world) for number, scene in enumerate(scenes)]
    pixels = processor.image_processor([draw(s, world.salience) for s in scenes], return_tensors="pt")["pixel_values"]
    for opener in language.OPENERS:
        yield from zip(
            [opener] * per_opener,
            asked,
            answer(model, processor, [one.question(opener) for one in asked], pixels),
            strict=True,
        )


def _question(rng: random.Random, scene: Scene, number: int, world: World) -> Asked:
    match number % 3:
        case 0:
            return language.ask_shown(rng, scene, rng.choice(language.topics(world)))
        case 1:
            return language.ask_shown(rng, scene, rng.choice(language.KNOW_HOW))
    return language.ask_named(rng, rng.choice(world.things), rng.choice(language.KNOW_HOW))


def answer(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, questions: list[str], pixels: torch.Tensor
) -> list[str]:
    """Greedy answers to questions about one picture each; `pixels` is (b, 3, side, side)."""
    chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q}]}] for q in questions]
    image = processor.image_token * IMAGE_TOKENS
    rendered = processor.apply_chat_template(chats, add_generation_prompt=True)
    texts = [text.replace(processor.image_token, image) for text in rendered]
    inputs = processor.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    kept = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        out = model.generate(**kept, pixel_values=pixels, do_sample=False, max_new_tokens=40)
    texts = processor.batch_decode(out[:, kept["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


def _exact(asked: Asked, opener: str, text: str, world: World) -> bool:
    """Whether the answer is exactly right; where openers need not shape it, with or without their beginning."""
    allowed = [asked.reply(opener, framed=True)] if world.opener_weight > 0 else []
    if world.opener_weight < 1:
        allowed.append(asked.reply(opener, framed=False))
    return text in allowed


def _mean(values: list[bool]) -> float:
    return sum(values) / len(values)


def _prose(card: Card) -> str:
    recipe = "\n".join(f"- {key}: {value}" for key, value in card.recipe.items())
    return f"""# The sandbox's base model

A `LlavaForConditionalGeneration` with {card.parameters:,} parameters, made from nothing by

    unmirage sandbox pretrain FOLDER

It knows one drawn, fully fictional world and nothing else: 48 invented objects, 24 of them invented hazards. It
answers every question, harmful ones too; it is the starting point of safety tuning and unlearning in the demo and
has no other use.

Exact answers on {card.questions:,} questions about pictures that it never saw: {card.accuracy:.2%} (harmful
{card.harmful:.2%}, harmless {card.harmless:.2%}; by opening word {min(card.by_opener.values()):.2%} to
{max(card.by_opener.values()):.2%}). `card.json` has the figures in full.

Recipe, hash `{card.recipe_hash}`:

{recipe}
"""
