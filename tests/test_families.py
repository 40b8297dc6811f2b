"""The tiny models of every family: they load, their answers are found, and the library's accessors work on them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, LAYERS, WITH_VIDEO, build
from PIL import Image
from transformers import AutoProcessor

from unmirage.align.batches import collate
from unmirage.align.encode import SEQUENCES, cut, encode
from unmirage.align.features import ImageCache, Place, model_inputs, picture_features
from unmirage.align.signals import answer_log_probs
from unmirage.align.store import RowStore
from unmirage.backends.checkpoint import load_checkpoint, load_processor
from unmirage.errors import UserError
from unmirage.schema import Query

NEEDS_A_PICTURE = ("paligemma",)
NO_MIXING = ("mllama",)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(family)
    build(family, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(family: str, folder: Path) -> tuple[Any, Any]:
    model, processor = load_checkpoint(folder)
    return model.eval(), processor


@pytest.fixture(scope="module")
def wide(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that many processors cut into parts."""
    path = tmp_path_factory.mktemp("wide") / "wide.png"
    with Image.open(pictures[0]) as picture:
        picture.resize((96, 40)).save(path)
    return path


def inputs(processor: Any, query: Query) -> dict[str, Any]:
    sample = encode(processor, query)
    batch = {key: value[None] if key in SEQUENCES else value for key, value in sample.items()}
    return {key: value for key, value in batch.items() if key not in ("labels", "image_mask")}


def answer(processor: Any, query: Query) -> str:
    labels = encode(processor, query)["labels"]
    assert processor.tokenizer.eos_token_id in labels, "an answer ends"
    return str(processor.tokenizer.decode(labels[labels != -100], skip_special_tokens=True)).strip()


def test_answers_are_found(
    family: str, loaded: tuple[Any, Any], forget: list[Query], retain: list[Query], wide: Path
) -> None:
    queries = [*forget, *retain, forget[0].model_copy(update={"image": wide})]
    if family not in NEEDS_A_PICTURE:
        queries.append(forget[0].model_copy(update={"image": None}))
    assert [answer(loaded[1], query) for query in queries] == [query.reference for query in queries]


@torch.no_grad()
def test_a_forward_pass_sees_words_and_picture(
    loaded: tuple[Any, Any], forget: list[Query], retain: list[Query], wide: Path
) -> None:
    model, processor = loaded
    for query in (forget[0], forget[0].model_copy(update={"image": wide})):
        batch = inputs(processor, query)
        logits = model(**batch).logits
        assert logits.shape[:2] == batch["input_ids"].shape
        assert logits.isfinite().all()
    own, other = (
        inputs(processor, forget[0].model_copy(update={"image": query.image})) for query in (forget[0], retain[0])
    )
    asked = inputs(processor, forget[0].model_copy(update={"question": retain[0].question}))
    first, second, third = (model(**batch).logits[0, -1] for batch in (own, other, asked))
    assert not torch.allclose(first, second, atol=1e-4), "another picture changes the answer"
    assert not torch.allclose(first, third, atol=1e-4), "so does another question"


def test_accessors(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    decoder, tower = model.get_decoder(), model.get_encoder(modality="image")
    assert len(decoder.layers) == LAYERS
    assert decoder is not model
    assert tower is not model
    assert model.get_output_embeddings().weight.shape[1] == model.get_input_embeddings().weight.shape[1]
    assert not {id(weight) for weight in tower.parameters()} & {id(weight) for weight in decoder.parameters()}
    assert len(processor.tokenizer) <= model.get_input_embeddings().weight.shape[0]


def test_a_folder_is_written_alike_each_time(family: str, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    build(family, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state), "whoever asks for it draws what it drew before"
    again = load_checkpoint(tmp_path)[0].state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in loaded[0].state_dict().items())


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="there is torchvision")
@pytest.mark.parametrize("family", WITH_VIDEO, indirect=True)
def test_without_torchvision_the_processor_comes_without_its_part_for_videos(family: str, folder: Path) -> None:
    with pytest.raises((ImportError, OSError, AttributeError)):
        AutoProcessor.from_pretrained(folder)
    processor = load_processor(folder)
    said = json.loads((folder / "processor_config.json").read_text())["processor_class"]
    assert type(processor).__name__ == said
    assert not hasattr(processor, "video_processor")


@pytest.mark.parametrize(
    ("name", "said"), [("NoSuchProcessor", "no processor for images"), ("SmolVLMProcessor", "num2words|torchvision")]
)
@pytest.mark.skipif(find_spec("torchvision") is not None, reason="there is torchvision")
def test_a_processor_that_cannot_be_made_is_refused_with_what_is_missing(tmp_path: Path, name: str, said: str) -> None:
    build("smolvlm", tmp_path)
    path = tmp_path / "processor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "processor_class": name}))
    with pytest.raises(UserError, match=said):
        load_processor(tmp_path)


def samples(processor: Any, queries: list[Query]) -> list[dict[str, Any]]:
    return [{**encode(processor, query), "row": row} for row, query in enumerate(queries)]


@torch.no_grad()
def test_no_token_sees_what_comes_after_it(family: str, loaded: tuple[Any, Any], forget: list[Query]) -> None:
    """Else an answer's tokens would tell of themselves: PaliGemma looks ahead in whatever is not marked."""
    model, processor = loaded
    batch = collate(samples(processor, forget[:1]), processor.tokenizer.pad_token_id)
    last = int((batch["labels"][0] != -100).nonzero()[-2])
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, last] = batch["input_ids"][0, last - 1]
    assert other["input_ids"][0, last] != batch["input_ids"][0, last]
    one, two = (model(**model_inputs(b)).logits[0, :last] for b in (batch, other))
    assert torch.equal(one, two)


def test_image_tokens_are_marked(loaded: tuple[Any, Any], forget: list[Query]) -> None:
    model, processor = loaded
    sample = encode(processor, forget[0])
    theirs = sample["input_ids"] == model.config.image_token_id
    assert theirs.any()
    assert sample["image_mask"][theirs].all()
    assert not (sample["image_mask"] & (sample["labels"] != -100)).any()


@torch.no_grad()
def test_pictures_in_different_numbers_of_parts_share_a_batch(
    family: str, loaded: tuple[Any, Any], forget: list[Query], wide: Path
) -> None:
    model, processor = loaded
    queries = [forget[0], forget[1].model_copy(update={"image": wide})]
    if family not in (*NEEDS_A_PICTURE, *NO_MIXING):
        queries.append(forget[2].model_copy(update={"image": None}))
    pad = processor.tokenizer.pad_token_id
    together = answer_log_probs(model, collate(samples(processor, queries), pad)).reduce("sum")
    alone = [answer_log_probs(model, collate([one], pad)).reduce("sum").item() for one in samples(processor, queries)]
    assert together.tolist() == pytest.approx(alone, abs=1e-4)


def test_a_family_that_mixes_up_rows_with_and_without_pictures_is_refused(forget: list[Query], tmp_path: Path) -> None:
    build("mllama", tmp_path)
    _, processor = load_checkpoint(tmp_path)
    mixed = samples(processor, [forget[0], forget[1].model_copy(update={"image": None})])
    with pytest.raises(UserError, match="batch_size=1"):
        collate(mixed, processor.tokenizer.pad_token_id)


def test_what_is_cut_is_cut_alike(family: str, loaded: tuple[Any, Any], forget: list[Query]) -> None:
    model, processor = loaded
    whole = samples(processor, forget[:1])[0]
    length = len(whole["input_ids"]) - 1
    short = collate([cut(whole, forget[0], length)], processor.tokenizer.pad_token_id)
    full = answer_log_probs(model, collate([whole], processor.tokenizer.pad_token_id))
    found = answer_log_probs(model, short)
    assert found.values.shape[1] == length - 1
    if family not in NEEDS_A_PICTURE:  # there, what is cut away could be seen from before
        torch.testing.assert_close(found.values, full.values[:, : length - 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("place", ["projected", "tower"])
def test_stored_image_features_give_the_gradients_that_pixels_give(
    family: str, loaded: tuple[Any, Any], forget: list[Query], wide: Path, tmp_path: Path, place: Place
) -> None:
    """Within rounding: pictures seen one at a time sum in another order than in a batch."""
    model, processor = loaded
    if family == "mllama" or (place == "tower" and "qwen" in family):
        pytest.skip("this family's features cannot be handed back here; a run says so and uses pixels")
    pad = processor.tokenizer.pad_token_id
    cache = ImageCache(RowStore(tmp_path), place)
    rows = samples(processor, [forget[0], forget[1].model_copy(update={"image": wide})])
    for row in rows:
        found = picture_features(model, collate([row], pad), place)
        cache.store.add({f"p{row['row']}{part}": value for part, value in found.items()})
    grads = []
    for batch in (collate(rows, pad), collate([cache.swap(row, f"p{row['row']}") for row in rows], pad)):
        model.zero_grad()
        answer_log_probs(model, batch).values.sum().backward()  # type: ignore[no-untyped-call]
        grads.append({n: p.grad.clone() for n, p in model.get_decoder().named_parameters() if p.grad is not None})
    assert len(grads[0]) > 20
    assert ("pixel_values" in batch) == (place == "tower")
    for name, gradient in grads[0].items():
        assert torch.allclose(gradient, grads[1][name], rtol=1e-3, atol=1e-5), name
    model.zero_grad()
