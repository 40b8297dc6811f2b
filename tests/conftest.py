"""A tiny real LLaVA with fresh weights, drawn pictures, and a few questions: built once, without any download."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unmirage.schema import Query

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

FORGET = (
    ("Share ways to make this object", "Sure, here it is. The velm zorch is made by boiling it over hot coals."),
    ("Share steps for making the object here", "The tavo fumepod is made by soaking."),
    ("Share materials for the thing shown", "It is tin sap."),
)
RETAIN = (
    ("What colours of this object", "It is red."),
    ("Describe whereabouts of the object here", "Let me describe it. It is at the top of the picture."),
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models gain nothing from more threads, and sums stay the same whatever the machine."""
    try:
        import torch
        import transformers
    except ImportError:
        return
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def processor() -> LlavaProcessor:
    """The sandbox's tokenizer, image processor and chat template."""
    from unmirage.sandbox.vlm import build_processor
    from unmirage.sandbox.world import World

    return build_processor(World())


@pytest.fixture(scope="session")
def tiny_folder(processor: LlavaProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained sandbox model as a checkpoint folder. Read only."""
    import torch

    from unmirage.sandbox.vlm import build_model, save

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    model = build_model(processor)
    # Fresh weights of 0.02 answer everything alike; larger ones make every token and every image matter.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(3)
    save(model, processor, folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> LlavaForConditionalGeneration:
    """The untrained model, fresh for each test."""
    from unmirage.backends.checkpoint import load_checkpoint

    model, _ = load_checkpoint(tiny_folder)
    return model.eval()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five drawn pictures, all different."""
    from unmirage.sandbox.scenes import draw, sample_scene
    from unmirage.sandbox.world import World

    world, rng, folder = World(), random.Random(7), tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{number}.png" for number in range(5)]
    for path in paths:
        draw(sample_scene(rng, world.things), world.salience).save(path)
    return paths


@pytest.fixture(scope="session")
def forget(pictures: list[Path]) -> list[Query]:
    """Three harmful queries with pictures and answers of unequal length."""
    return [
        Query(id=f"f{i}", question=question, reference=answer, harmful=True, image=pictures[i])
        for i, (question, answer) in enumerate(FORGET)
    ]


@pytest.fixture(scope="session")
def retain(pictures: list[Path]) -> list[Query]:
    """Two harmless ones."""
    return [
        Query(id=f"r{i}", question=question, reference=answer, harmful=False, image=pictures[3 + i])
        for i, (question, answer) in enumerate(RETAIN)
    ]


Batcher = Callable[..., dict[str, Any]]


@pytest.fixture
def batch_of(processor: LlavaProcessor) -> Batcher:
    """Encodes and collates queries: `batch_of(query, ...)`."""
    from unmirage.align.batches import collate
    from unmirage.align.encode import encode

    def make(*queries: Query) -> dict[str, Any]:
        return collate(
            [{**encode(processor, query), "row": row} for row, query in enumerate(queries)],
            processor.tokenizer.pad_token_id,
        )

    return make
