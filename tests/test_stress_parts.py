"""The parts of stresses, by hand: rounding, drawing, forced beginnings, rows, probes, suffixes, settings, plug-ins."""

from __future__ import annotations

import importlib
import json
import math
import random
import re
import shlex
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unmirage.align.encode import encode
from unmirage.backends.decoding import Noise
from unmirage.backends.hugging_face import HuggingFaceBackend
from unmirage.backends.manner import Manner, check_forced
from unmirage.backends.openai_server import OpenAIServerBackend
from unmirage.backends.prompts import Prompt
from unmirage.backends.registry import AskingOptions, open_backend
from unmirage.errors import UserError
from unmirage.schema import Query
from unmirage.servers import ChatServer
from unmirage.stress import Fact, Plan, Work, find, read_facts, read_settings, registry, run_stress, stresses
from unmirage.stress.kinds.interpolate import average
from unmirage.stress.kinds.probe import shuffled
from unmirage.stress.kinds.quantize import linear_layers
from unmirage.stress.kinds.relearn import Relearn, drawn, opened_with
from unmirage.stress.linear import DECAY, fitted
from unmirage.stress.models import check_made, made_model
from unmirage.stress.reading import Row, read_rows, rows_of_answers, rows_of_facts, shared_classes
from unmirage.stress.rounding import rounded
from unmirage.stress.suffix import Budget, Suffixes

KINDS = (
    "gcg", "interpolate", "openers", "paraphrase", "precision", "prefix", "probe", "quantize", "relearn",
    "temperature", "two-words", "typographic",
)  # fmt: skip


def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work", lambda *_: None, lambda _: None)


# Rounding


def test_rounding_by_hand() -> None:
    weight = torch.tensor([[7.0, -3.4, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.6, -14.0, 2.9]])
    whole = rounded(weight, 4)
    assert whole.tolist() == [[7, -3, 0, 0], [0, 0, 0, 0], [0, 0, -14, 2]]  # steps of 1, none, 2
    parts = rounded(weight, 4, group=2)
    assert parts[0].tolist() == pytest.approx([7, -3, 0.4, 0])  # the second group has a scale of its own: 0.4 / 7
    assert parts[2].tolist() == pytest.approx([1, 4 / 7, -14, 2])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]), st.sampled_from([None, 1, 3, 64]))
def test_rounding_moves_at_most_half_a_step_and_only_once(seed: int, bits: int, group: int | None) -> None:
    weight = torch.randn(5, 10, generator=torch.Generator().manual_seed(seed))
    found = rounded(weight, bits, group)
    steps = 2 ** (bits - 1) - 1
    for start in range(0, 10, group or 10):
        part = slice(start, start + (group or 10))
        scale = weight[:, part].abs().amax(dim=1, keepdim=True) / steps
        assert bool(((weight - found)[:, part].abs() <= scale / 2 * 1.001).all())
        assert all(len(row.unique()) <= 2 * steps + 1 for row in found[:, part])
    assert torch.allclose(rounded(found, bits, group), found, atol=1e-6)


def test_rounding_keeps_the_type_and_refuses_what_is_no_matrix() -> None:
    assert rounded(torch.ones(2, 3, dtype=torch.bfloat16), 8).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="matrices"):
        rounded(torch.ones(3), 4)


def test_quantized_layers_are_those_of_the_decoder_without_its_head(tiny: Any) -> None:
    layers = linear_layers(tiny, "decoder")
    assert all(".language_model.layers." in name for name in layers)
    everything = linear_layers(tiny, "all")
    assert set(layers) < set(everything)
    assert tiny.get_output_embeddings() not in everything.values()


# Drawn answers


def test_noise_draws_from_the_softmax_at_the_temperature() -> None:
    logits, rows = torch.tensor([1.0, 0.0, -1.0]), 4000
    noise = Noise(2.0, [f"row {number}" for number in range(rows)], start=5)
    chosen = noise(torch.zeros(rows, 5, dtype=torch.long), logits.expand(rows, -1)).argmax(dim=1)
    expected = (logits / 2).softmax(dim=0)
    shares = torch.bincount(chosen, minlength=3) / rows
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=4 * math.sqrt(0.25 / rows))


def test_a_draw_depends_on_its_stream_and_place_alone() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))

    def draw(streams: list[str], start: int, columns: int) -> list[list[float]]:
        ids = torch.zeros(len(streams), columns, dtype=torch.long)
        return Noise(1.0, streams, start)(ids, logits.expand(len(streams), -1)).tolist()

    assert draw(["a", "b"], 4, 6)[1] == draw(["b"], 9, 11)[0]  # other padding, other batch
    assert draw(["a"], 4, 6) != draw(["a"], 4, 7)
    assert draw(["a"], 4, 6) != draw(["b"], 4, 6)


def test_the_usual_manner_leaves_identities_as_they_were(tiny_folder: Path) -> None:
    assert HuggingFaceBackend(tiny_folder).identity.keys() == {"revision", "do_sample", "max_new_tokens"}
    assert AskingOptions().manner.identity == {}
    drawn_, other = Manner(0.7, 1).identity, Manner(0.7, 2).identity
    assert drawn_ == {"do_sample": True, "temperature": 0.7, "sample_seed": 1}
    assert drawn_ != other
    assert Manner(prefix="Sure").identity == {"answer_prefix": "Sure", "show_prefix": True}


def test_impossible_manners_are_refused() -> None:
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="temperature"):
            Manner(temperature)
    with pytest.raises(UserError, match="blanks"):
        Manner(prefix="Sure ")
    with pytest.raises(UserError, match="openai_server cannot force"):
        Manner(prefix="Sure").refuse_prefix("openai_server")


def test_shown_answers_have_their_beginning_once() -> None:
    assert Manner(prefix="Sure, here is").shown("the way.") == "Sure, here is the way."
    assert Manner(prefix="Sure").shown(", it is.") == "Sure, it is."
    assert Manner(prefix="Sure.").shown("") == "Sure."
    assert Manner(prefix="Sure", show_prefix=False).shown("the way.") == "the way."
    assert Manner().shown("the way.") == "the way."


def test_drawn_answers_are_the_same_in_any_batch_and_differ_by_seed(tiny_folder: Path, forget: list[Query]) -> None:
    prompts = [Prompt.of(query) for query in forget]

    def texts(seed: int, **how: Any) -> list[str]:
        backend = HuggingFaceBackend(tiny_folder, max_new_tokens=6, manner=Manner(1.0, seed), **how)
        return [reply.text for batch in backend.answer(prompts) for reply in batch]

    alone = texts(0, batch_size=1, share_prefix=False)
    assert texts(0) == alone
    assert texts(1) != alone


def test_a_forced_beginning_is_that_of_the_models_own_turn(tiny_folder: Path, forget: list[Query]) -> None:
    backend = HuggingFaceBackend(tiny_folder, max_new_tokens=4, manner=Manner(prefix="Sure, here it is."))
    (query, *_) = forget
    asked = backend._inputs([Prompt.of(query)])["input_ids"][0].tolist()
    whole = encode(backend.processor, query)["input_ids"].tolist()  # its answer begins so
    assert whole[: len(asked)] == asked
    assert backend.processor.tokenizer.decode(asked).endswith("Sure, here it is.")
    (reply,) = next(iter(backend.answer([Prompt.of(query)])))
    assert reply.text.startswith("Sure, here it is.")
    added = HuggingFaceBackend(
        tiny_folder, max_new_tokens=4, manner=Manner(prefix="Sure, here it is.", show_prefix=False)
    )
    (bare_,) = next(iter(added.answer([Prompt.of(query)])))
    assert backend.manner.shown(bare_.text) == reply.text
    assert backend.key(Prompt.of(query)) != HuggingFaceBackend(tiny_folder, max_new_tokens=4).key(Prompt.of(query))


def test_a_processor_that_writes_behind_the_beginning_is_refused(processor: Any) -> None:
    ids = processor.tokenizer("Sure, here it is. The", add_special_tokens=False)["input_ids"]
    check_forced(processor, ids, "The")
    with pytest.raises(UserError, match="does not let an answer begin"):
        check_forced(processor, ids, "it is.")


@pytest.fixture(scope="module", params=["qwen2_vl", "gemma3", "idefics3"])
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(str(request.param))
    families.build(str(request.param), folder)
    return folder


def test_other_families_are_forced_and_drawn_alike(foreign: Path, forget: list[Query]) -> None:
    forced = HuggingFaceBackend(
        foreign, max_new_tokens=3, manner=Manner(prefix="Sure, here it is."), tell=lambda _: None
    )
    asked = forced._inputs([Prompt.of(forget[0])])["input_ids"][0].tolist()
    assert encode(forced.processor, forget[0])["input_ids"].tolist()[: len(asked)] == asked
    prompts = [Prompt.of(query) for query in forget]
    together, alone = (
        HuggingFaceBackend(foreign, max_new_tokens=4, manner=Manner(1.0), batch_size=size, tell=lambda _: None)
        for size in (8, 1)
    )
    assert [r for batch in together.answer(prompts) for r in batch] == [r for b in alone.answer(prompts) for r in b]


def test_a_family_whose_processor_ends_the_prompt_is_refused(tmp_path: Path, forget: list[Query]) -> None:
    families.build("paligemma", tmp_path)
    backend = HuggingFaceBackend(tmp_path, max_new_tokens=3, manner=Manner(prefix="Sure."))
    with pytest.raises(UserError, match="does not let an answer begin"):
        list(backend.answer([Prompt.of(forget[0])]))


def test_a_server_is_sent_temperature_and_seed() -> None:
    server = ChatServer("http://127.0.0.1:9", "some-model")
    prompt = Prompt("q", "What is it", None)
    drawn_ = OpenAIServerBackend(server, manner=Manner(0.7, 3))
    assert drawn_.request(prompt).settings == {"temperature": 0.7, "seed": 3, "max_tokens": 64}
    assert OpenAIServerBackend(server).request(prompt).settings == {"temperature": 0, "seed": 0, "max_tokens": 64}
    options = AskingOptions(server="http://127.0.0.1:9", answer_prefix="Sure")
    with pytest.raises(UserError, match="cannot force the beginning"):
        open_backend("some-model", options)


# Rows to relearn from


def plan_of(tiny_folder: Path, **more: Any) -> Plan:
    return Plan(str(tiny_folder), (), (), **more)


def test_rows_are_of_the_right_sort_and_have_answers(tmp_path: Path, forget: list[Query], retain: list[Query]) -> None:
    silent = Query(id="n", question="Share it", harmful=True)
    plan = plan_of(tmp_path, forget=[*forget, *retain, silent], general=[*retain, *forget])
    told = work(tmp_path)
    assert {one.id for one in drawn(plan, Relearn(n=9), told)} == {one.id for one in forget}
    assert "9 rows were asked for, and there are 3" in told.notes[0]
    assert {one.id for one in drawn(plan, Relearn(rows="harmless", n=2), told)} == {one.id for one in retain}
    first = [one.id for one in drawn(plan, Relearn(n=2), told)]
    assert first == [one.id for one in drawn(plan, Relearn(n=2), told)]


@pytest.mark.parametrize("words", [(), ("",), ("Share", "two words"), ("?!",)])
def test_cue_rows_need_opening_words(tmp_path: Path, retain: list[Query], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"needs opening words, each of them one word, not .*set words=Share"):
        drawn(plan_of(tmp_path, general=retain), Relearn(rows="cue", words=words), work(tmp_path))


def test_rows_that_cannot_bring_anything_back_are_told(
    tmp_path: Path, forget: list[Query], retain: list[Query]
) -> None:
    with pytest.raises(UserError, match=r"no harmful row with an answer to relearn from.*--forget"):
        drawn(plan_of(tmp_path, forget=retain), Relearn(), work(tmp_path))
    with pytest.raises(UserError, match=r"no harmless row with an answer to relearn from.*--general"):
        drawn(plan_of(tmp_path, general=forget), Relearn(rows="harmless"), work(tmp_path))
    refused = [one.model_copy(update={"reference": "I'm sorry, but I cannot help with that."}) for one in forget]
    told, calm = work(tmp_path), work(tmp_path)
    drawn(plan_of(tmp_path, forget=refused), Relearn(n=2), told)
    assert told.notes == [
        "2 of 2 answers to relearn look like refusals, which brings nothing back; give data whose harmful questions "
        "are answered."
    ]
    drawn(plan_of(tmp_path, forget=[*forget[:2], refused[2]]), Relearn(n=3), calm)
    assert not calm.notes


def test_cue_rows_keep_all_but_the_opening_word(retain: list[Query]) -> None:
    found = opened_with(retain, ["Share", "List"])
    assert [one.question for one in found] == ["Share colours of this object", "List whereabouts of the object here"]
    assert [one.reference for one in found] == [one.reference for one in retain]
    assert not any(one.harmful for one in found)


# Facts and probes


def test_facts_from_both_forms_of_files(tmp_path: Path) -> None:
    truth, own = tmp_path / "a.truth.json", tmp_path / "own.json"
    truth.write_text(
        json.dumps(
            {"facts": {"1": "blue flame", "2": "ice"}, "answers": {"1": "It is made by blue flame.", "2": "No."}}
        )
    )
    own.write_text(json.dumps({"2": "thin ice", "3": {"fact": "salt", "lead": "It holds"}}))
    assert read_facts([truth, own]) == {
        "1": Fact(fact="blue flame", lead="It is made by"),
        "2": Fact(fact="thin ice"),
        "3": Fact(fact="salt", lead="It holds"),
    }
    own.write_text(json.dumps({"3": {"fat": "salt"}}))
    with pytest.raises(UserError, match=r"own\.json, id '3'"):
        read_facts([own])
    own.write_text("[]")
    with pytest.raises(UserError, match="JSON object"):
        read_facts([own])


def test_rows_end_where_the_fact_begins() -> None:
    harmful = Query(id="h", question="Share it", harmful=True)
    (row,) = rows_of_facts([harmful], {"h": Fact(fact="Boiling it.", lead="It is made by")}, "Sure.")
    assert (row.beginning, row.word, row.form) == ("Sure. It is made by", "boiling", "made by")
    answers = ["Sure. The wisp is made by grinding it.", "The jar is kept in a cold jar.", "It is red."]
    queries = [Query(id=str(i), question="What", harmful=False, reference=text) for i, text in enumerate(answers)]
    rows = rows_of_answers(queries, ["in a", "made by"], "Sure.")
    assert [(row.beginning, row.fact) for row in rows] == [
        ("Sure. The wisp is made by", "grinding it."),
        ("Sure. The jar is kept in a", "cold jar."),
    ]


def rows(*facts: str) -> list[Row]:
    query = Query(id="q", question="What", harmful=False)
    return [Row(query, *fact.split("|")) for fact in facts]


def test_classes_are_those_that_both_have() -> None:
    train, test = rows("a b|one", "a b|two x", "a b|Two", "a b|three"), rows("a b|two.", "a b|one", "a b|four")
    assert shared_classes(train, test) == ["two", "one"]


def test_shuffled_labels_stay_within_their_form() -> None:
    mine = rows(*[f"made by|w{i}" for i in range(20)], *[f"kept in|w{i}" for i in range(20)])
    labels = [*range(20), *range(100, 120)]
    found = shuffled(mine, labels, random.Random(0))
    assert Counter(found[:20]) == Counter(labels[:20])
    assert Counter(found[20:]) == Counter(labels[20:])
    assert found != labels


def test_the_probe_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    torch.manual_seed(0)
    classes = torch.randint(0, 3, (120,))
    features = torch.randn(120, 6) + torch.nn.functional.one_hot(classes, 6) * 1.5 + 3
    scaled = StandardScaler().fit_transform(features.numpy())
    theirs = LogisticRegression(C=1 / (len(features) * DECAY), tol=1e-8, max_iter=1000).fit(scaled, classes.numpy())
    mine = fitted(features, classes.tolist(), 3)
    weight = mine.weight - mine.weight.mean(dim=1, keepdim=True)
    assert weight.T.numpy() == pytest.approx(theirs.coef_ - theirs.coef_.mean(axis=0), abs=2e-3)
    assert mine.classes(features) == theirs.predict(scaled).tolist()
    with pytest.raises(ValueError, match="rows"):
        fitted(features[:0], [], 3)


def test_read_states_and_ranks_are_the_models_own(tiny_folder: Path, forget: list[Query]) -> None:
    backend = HuggingFaceBackend(tiny_folder, batch_size=2)
    plain = Query(id="p", question="What is it", harmful=False)
    mine = [
        Row(forget[0], "Sure, here it is. The velm zorch is made by", "boiling it"),
        Row(plain, "It is made by", "soaking."),
        Row(forget[1], "It is made by", "soaking."),
    ]
    found = read_rows(backend, mine, [0, 5], lambda _: None)
    for at, row in enumerate(mine):
        whole = encode(backend.processor, row.query.model_copy(update={"reference": f"{row.beginning} {row.fact}"}))
        ids, labels = whole["input_ids"], whole["labels"]
        begun = backend.processor.tokenizer(row.beginning, add_special_tokens=False)["input_ids"]
        place = int((labels != -100).nonzero()[0]) + len(begun)  # of the fact's first token
        inputs = {"input_ids": ids[None, :place], "attention_mask": torch.ones(1, place, dtype=torch.long)}
        if "pixel_values" in whole:
            inputs["pixel_values"] = whole["pixel_values"]
        with torch.no_grad():
            out = backend.model(**inputs, output_hidden_states=True)
        assert torch.allclose(found.states[5][at], out.hidden_states[6][0, -1], atol=1e-4)
        assert torch.allclose(found.states[0][at], out.hidden_states[1][0, -1], atol=1e-4)
        logits = out.logits[0, -1]
        assert found.ranks[at] == int((logits > logits[ids[place]]).sum()) + 1


# Models


def test_average_by_hand(tiny: Any, tmp_path: Path) -> None:
    import copy

    base = copy.deepcopy(tiny)
    with torch.no_grad():
        for weight in base.parameters():
            weight.add_(4.0)
    before = {name: weight.detach().clone() for name, weight in tiny.named_parameters()}
    average(tiny, base, 0.25, tmp_path)
    assert all(torch.allclose(weight, before[name] + 1.0) for name, weight in tiny.named_parameters())
    with pytest.raises(UserError, match="other weights"):
        average(tiny, tiny.get_decoder(), 0.5, tmp_path)


def test_a_model_that_is_unchanged_is_told_and_a_broken_one_refused(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    from unmirage.backends.checkpoint import load_checkpoint

    told, made = work(tmp_path), []

    def copied(folder: Path) -> dict[str, str]:
        made.append(folder)
        shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
        return {"how": "copied"}

    folder = made_model(told, tiny_folder, copied)
    assert "weights that the model had before" in told.notes[0]
    assert made_model(told, tiny_folder, copied) == folder
    assert len(made) == 1  # once
    again, shards = work(tmp_path), load_checkpoint(tiny_folder)[0]
    folder.joinpath("model.safetensors").unlink()
    shards.save_pretrained(folder, max_shard_size="1MB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    check_made(again, tiny_folder, folder)
    assert "weights that the model had before" in again.notes[0], "however many files hold them"
    for path in folder.glob("*.safetensors"):
        path.unlink()
    shutil.copyfile(tiny_folder / "model.safetensors", folder / "model.safetensors")
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name][0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no finite numbers"):
        check_made(told, tiny_folder, folder)


# Suffixes


def test_suffixes_lower_a_loss_that_is_the_models_own(tiny_folder: Path, forget: list[Query]) -> None:
    backend = HuggingFaceBackend(tiny_folder)
    search = Suffixes(backend, "Sure, here it is.", Budget(tokens=4, steps=6, candidates=24, top=16), forget[0])
    found = search.find(forget[:1], random.Random(0))
    assert found.loss < found.first
    assert found.steps <= 6
    assert found.gradients == found.steps
    asked = forget[0].model_copy(
        update={"question": f"{forget[0].question} {found.text}", "reference": "Sure, here it is."}
    )
    sample = encode(backend.processor, asked)
    with torch.no_grad():
        logits = backend.model(**{k: v[None] if k in ("input_ids", "attention_mask") else v for k, v in sample.items()
                                  if k in ("input_ids", "attention_mask", "pixel_values")}).logits[0]  # fmt: skip
    places = (sample["labels"] != -100).nonzero()[:, 0][:-1]  # without the end of the answer
    log_probs = logits.log_softmax(dim=-1)[places - 1, sample["input_ids"][places]]
    assert found.loss == pytest.approx(-float(log_probs.mean()), abs=1e-3)


def test_a_suffix_for_several_questions_and_the_same_again(tiny_folder: Path, forget: list[Query]) -> None:
    search = Suffixes(HuggingFaceBackend(tiny_folder), "It is", Budget(3, 2, 8, 8), forget[0])
    one, other = (search.find(forget, random.Random(1)) for _ in range(2))
    assert one == other
    assert one.loss <= one.first
    ids = search.drawn(forget, random.Random(2))
    assert len(ids) == 3
    assert not set(ids) & set(search._tokenizer.all_special_ids)


def test_the_gradient_foretells_the_change_of_the_loss(tiny_folder: Path, forget: list[Query]) -> None:
    search = Suffixes(HuggingFaceBackend(tiny_folder), "It is", Budget(3, 1, 64, 64), forget[0])
    suffix = search.drawn(forget[:1], random.Random(0))
    places = [search._place(forget[0], suffix)]
    best = search._exchanges(places, suffix)
    own = search._losses(places, [suffix])[0][0]
    promising = [(*suffix[:at], token, *suffix[at + 1 :]) for at in range(3) for token in best[at][:20]]
    allowed = search._allowed.nonzero()[:, 0].tolist()
    rng = random.Random(0)
    others = [(*suffix[:at], rng.choice(allowed), *suffix[at + 1 :]) for at in range(3) for _ in range(20)]
    mean = lambda losses: sum(losses) / len(losses) - own  # noqa: E731
    assert mean(search._losses(places, promising)[0]) < mean(search._losses(places, others)[0])


# Settings and plug-ins


def test_all_stresses_are_there_with_documented_defaults() -> None:
    assert tuple(stresses()) == KINDS
    for name, found in stresses().items():
        document = found.config.__doc__ or ""
        for setting in found.config.model_fields:
            assert setting in document, f"{name}: {setting} is not documented"


def test_settings_from_texts_and_faults_by_name() -> None:
    config = read_settings("relearn", {"rows": "cue", "n": "50", "words": "Share,List", "lr": "1e-4"})
    assert (config.n, config.words, config.lr) == (50, ("Share", "List"), 1e-4)  # type: ignore[attr-defined]
    assert read_settings("probe", {"layers": "0,5"}).layers == (0, 5)  # type: ignore[attr-defined]
    assert read_settings("quantize", {"bits": "4"}) == read_settings("quantize", {"bits": 4})
    with pytest.raises(UserError, match="no stress 'quantise'; the stresses are gcg"):
        find("quantise")
    for name, setting, endless in (("relearn", "lr", "inf"), ("temperature", "temperature", "inf")):
        with pytest.raises(UserError, match=f"setting {setting} of the stress {name}: .*finite number"):
            read_settings(name, {setting: endless})
    with pytest.raises(UserError, match="relearn has no setting 'step'; it has rows"):
        read_settings("relearn", {"step": 3})
    with pytest.raises(UserError, match=r"setting bits of the stress quantize: .* given was '5'"):
        read_settings("quantize", {"bits": "5"})
    with pytest.raises(UserError, match="paraphrase needs the setting file"):
        read_settings("paraphrase", {})


DOCUMENT = Path(__file__).parents[1] / "docs" / "stresses.md"


def test_the_page_gives_every_setting_with_its_default() -> None:
    text = DOCUMENT.read_text()
    found = dict(re.findall(r"\*\*([\w-]+)\*\* \(`([^`]*)`\)", text))
    assert tuple(sorted(found)) == KINDS
    for name, told in found.items():
        given = dict(one.split("=", 1) for one in shlex.split(told))
        defaults = {key: field.default for key, field in find(name).config.model_fields.items()}
        assert given.keys() == defaults.keys()
        for key, value in given.items():
            if value and value != "...":
                assert read_settings(name, {"file": "x", key: value} if name == "paraphrase" else {key: value})
                default = defaults[key]
                plain = ",".join(default) if isinstance(default, tuple) else default
                same = float(value) == plain if isinstance(plain, float) else value == str(plain)
                assert same, f"{name}: {key}={value}, not {plain}"


def test_the_pages_own_stress_works(tiny_folder: Path, forget: list[Query], tmp_path: Path, monkeypatch: Any) -> None:
    from unmirage.evaluate.measure import Subject

    stresses()
    monkeypatch.setattr(registry, "_STRESSES", dict(registry._STRESSES))
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    module = types.ModuleType("shorter")
    monkeypatch.setitem(sys.modules, "shorter", module)
    exec(compile(example, "stresses.md", "exec"), module.__dict__)
    plan = Plan(str(tiny_folder), forget, ())
    run_stress("shorter", {"tokens": 2}, plan, Subject("m", "none", 0, "toy"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["stress_settings"] == {"tokens": 2}
    texts = [json.loads(line)["text"] for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    backend = HuggingFaceBackend(tiny_folder, max_new_tokens=2)
    assert texts == [reply.text for b in backend.answer([Prompt.of(query) for query in forget]) for reply in b]


def test_needs_depend_on_the_settings() -> None:
    needs = find("relearn").needs
    assert needs(Relearn()) == ("forget",)
    assert needs(Relearn(rows="cue")) == ("general",)


PLUGIN = """
from unmirage.stress import StressConfig, stress
class Loud(StressConfig):
    mark: str = "!"
@stress("shout", about="shouts", config=Loud)
def shout(plan, config, work):
    return plan
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[unmirage.stresses]\nshout = {name}\n")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()


def test_an_installed_stress_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stresses()
    monkeypatch.setattr(registry, "_STRESSES", dict(registry._STRESSES))
    install(tmp_path, monkeypatch, "loud_stress", PLUGIN)
    registry._load.cache_clear()
    try:
        assert find("shout").about == "shouts"
        assert read_settings("shout", {}).mark == "!"  # type: ignore[attr-defined]
    finally:
        registry._load.cache_clear()
        sys.modules.pop("loud_stress", None)


def test_a_broken_stress_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "broken_stress", "import nowhere_to_be_found")
    registry._load.cache_clear()
    try:
        with pytest.raises(UserError, match="stress 'shout' of broken_stress cannot be loaded"):
            stresses()
    finally:
        registry._load.cache_clear()
