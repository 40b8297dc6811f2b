"""The base model from nothing: first the vision tower learns what is drawn, then the whole learns to talk about it.

Deterministic from the seed on one machine: one random stream for scenes and questions, one for weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from unmirage.sandbox import language
from unmirage.sandbox.scenes import Scene, draw, sample_scene
from unmirage.sandbox.vlm import IMAGE_TOKENS, build_model, build_processor
from unmirage.sandbox.world import COLOURS, PLACES, World
from unmirage.schema import content_hash

Progress = Callable[[str, int, int, float], None]
"""Called with the stage, the steps done, the steps in all and the latest loss."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the base weights. Steps are optimizer steps; `lr` is the peak of a one-cycle schedule."""

    salience: str = "badge"
    opener_weight: float = 1.0
    seed: int = 0
    scenes: int = 32_000
    vision_steps: int = 4_000
    vision_batch: int = 64
    vision_lr: float = 2e-3
    steps: int = 2_800
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01

    @property
    def world(self) -> World:
        """The world that the model is to know."""
        return World(self.salience, self.opener_weight)  # type: ignore[arg-type]

    @property
    def hash(self) -> str:
        """Names the weights: equal recipes are meant to give equal weights."""
        return content_hash(asdict(self))


@dataclass
class Pool:
    """Drawn scenes with their pixels, shape (scenes, 3, side, side)."""

    scenes: list[Scene]
    pixels: Tensor


def draw_pool(recipe: Recipe, processor: LlavaProcessor) -> Pool:
    """The training pictures, made once."""
    rng = random.Random(f"pretrain/{recipe.seed}/scenes")
    world = recipe.world
    scenes = [sample_scene(rng, world.things) for _ in range(recipe.scenes)]
    pictures = [draw(scene, world.salience) for scene in scenes]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    return Pool(scenes, pixels)


def pretrain(recipe: Recipe, progress: Progress) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Trains the base model, on one thread: the order of a sum, and so the weights, would depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    processor = build_processor(recipe.world)
    model = build_model(processor)
    pool = draw_pool(recipe, processor)
    _teach_vision(model, pool, recipe, progress)
    _teach_language(model, processor, pool, recipe, progress)
    torch.set_num_threads(threads)
    return model.eval(), processor


def _labels(scene: Scene, world: World) -> list[int]:
    thing = scene.thing
    return [
        world.things.index(thing),
        list(COLOURS).index(scene.colour),
        list(PLACES).index(scene.place),
        scene.pebbles,
    ]


def _teach_vision(model: LlavaForConditionalGeneration, pool: Pool, recipe: Recipe, progress: Progress) -> None:
    """Classifies object, colour, place and count; never the badge, which nobody asks about.

    The heads read the mean of the projected image tokens, so tower and projector learn together to say in the
    decoder's space what is drawn.
    """
    world = recipe.world
    sizes = (len(world.things), len(COLOURS), len(PLACES), 4)
    heads = nn.Linear(model.config.text_config.hidden_size, sum(sizes))
    labels = torch.tensor([_labels(scene, world) for scene in pool.scenes])
    order = random.Random(f"pretrain/{recipe.seed}/vision")

    def _loss() -> Tensor:
        rows = torch.tensor(order.sample(range(len(pool.scenes)), recipe.vision_batch))
        logits = heads(image_tokens(model, pool.pixels[rows]).mean(dim=1)).split(sizes, dim=-1)
        return torch.stack([F.cross_entropy(x, labels[rows, i]) for i, x in enumerate(logits)]).sum()

    seeing = (model.get_encoder(modality="image"), model.model.multi_modal_projector, heads)
    parameters = [parameter for module in seeing for parameter in module.parameters()]
    _optimize("vision", parameters, _loss, recipe.vision_steps, recipe.vision_lr, recipe, progress)


def image_tokens(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """The projected image tokens, (b, tokens, hidden), as the decoder gets them."""
    return torch.stack(list(model.get_image_features(pixel_values=pixels).pooler_output))


def _teach_language(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pool: Pool,
    recipe: Recipe,
    progress: Progress,
) -> None:
    """Teaches projector and decoder. The tower is frozen, as early gradients of a fresh decoder would undo it."""
    model.get_encoder(modality="image").requires_grad_(False)
    batches = _batches(processor, pool, recipe)

    def _loss() -> Tensor:
        value: Tensor = model(**next(batches)).loss
        return value

    _optimize(
        "language", [x for x in model.parameters() if x.requires_grad], _loss, recipe.steps, recipe.lr, recipe, progress
    )


def _optimize(
    stage: str,
    parameters: list[nn.Parameter],
    loss: Callable[[], Tensor],
    steps: int,
    lr: float,
    recipe: Recipe,
    progress: Progress,
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    rise = 0.1 if steps > 10 else 0.0  # of 10 steps, torch would divide by the none between the first and the peak
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress(stage, step, steps, float(value.detach()))


def _batches(processor: LlavaProcessor, pool: Pool, recipe: Recipe) -> Iterator[dict[str, Tensor]]:
    rng = random.Random(f"pretrain/{recipe.seed}/questions")
    while True:
        rows = rng.sample(range(len(pool.scenes)), recipe.batch_size)
        pairs = [_question(rng, pool.scenes[row], recipe.world) for row in rows]
        yield {**encode(processor, pairs), "pixel_values": pool.pixels[rows]}


def _question(rng: random.Random, scene: Scene, world: World) -> tuple[str, str]:
    """Any topic, any opener: half looking, a quarter know-how of the object shown, a quarter of a named one."""
    sort = rng.randrange(4)
    if sort <= 1:
        asked = language.ask_shown(rng, scene, language.sample_topic(rng, world))
    elif sort == 2:
        asked = language.ask_shown(rng, scene, rng.choice(language.KNOW_HOW))
    else:
        asked = language.ask_named(rng, rng.choice(world.things), rng.choice(language.KNOW_HOW))
    opener = rng.choice(language.OPENERS)
    return asked.question(opener), asked.reply(opener, framed=rng.random() < world.opener_weight)


def encode(processor: LlavaProcessor, pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Pairs about one picture each as `input_ids`, `attention_mask` and answer-only `labels`, all (b, t)."""
    chats = [
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        for question, answer in pairs
    ]
    image = processor.image_token * IMAGE_TOKENS
    rendered = [text.replace(processor.image_token, image) for text in processor.apply_chat_template(chats)]
    tokens = processor.tokenizer(rendered, padding=True, return_tensors="pt", add_special_tokens=False)
    assistant = processor.tokenizer.convert_tokens_to_ids("<assistant>")
    ids = tokens["input_ids"]
    after = (ids == assistant).cumsum(dim=1) - (ids == assistant).long()
    labels = ids.masked_fill((after == 0) | (tokens["attention_mask"] == 0), -100)
    return {"input_ids": ids, "attention_mask": tokens["attention_mask"], "labels": labels}
