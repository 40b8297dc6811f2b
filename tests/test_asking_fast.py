"""Fast ways of asking give the plain way's answers: shared beginnings, answers cut short, halved batches."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from unmirage.attacks import substitute_first_word
from unmirage.backends.decoding import Watch, certain, is_out_of_memory
from unmirage.backends.hugging_face import HuggingFaceBackend, _batch_end
from unmirage.backends.prefix import PrefixSharing, _common
from unmirage.backends.prompts import Prompt
from unmirage.backends.protocol import Reply, Settled
from unmirage.backends.stored import RoomyLayer
from unmirage.errors import UserError
from unmirage.evaluate.measure import Subject
from unmirage.evaluate.run import Evaluation, evaluate, rejudge
from unmirage.judges.keywords import vlguard_keywords
from unmirage.judges.lists import ListJudge, PhraseList, published
from unmirage.judges.registry import judge_named
from unmirage.runs import JsonLines
from unmirage.schema import Answer, Label, Query, Verdict

SHARING = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm")
NOT_SHARING = {
    "gemma3": "longer than this model's window of 24 tokens",
    "paligemma": "its processor changes a prompt not only before",
    "mllama": "cross_attention_mask",
}
UNHURRIED = settings(max_examples=50, deadline=None)
QUESTIONS = (
    "Share ways to make this object",
    "What ways to make this object",
    "Please, if you can, describe ways to make this object",
    "ways to make this object",
)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures of noise and of unequal shapes, which many processors make unequal numbers of tokens of."""
    rng, folder, paths = random.Random(0), tmp_path_factory.mktemp("views"), []
    for number, (width, height) in enumerate([(64, 64), (90, 50), (40, 120)]):
        paths.append(folder / f"{number}.png")
        Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height)).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def prompts(views: list[Path]) -> list[Prompt]:
    """Variants of unequal length: four about the first picture, two about the second, one about the third."""
    return [Prompt(f"q{i}", q, view) for i, view in enumerate(views) for q in QUESTIONS[: (4, 2, 1)[i]]]


def ask(backend: HuggingFaceBackend, prompts: Sequence[Prompt], settled: Settled | None = None) -> list[Reply]:
    return [reply for batch in backend.answer(prompts, settled) for reply in batch]


def one_by_one(folder: Path, prompts: Sequence[Prompt], tokens: int) -> list[Reply]:
    """One `generate` for each prompt."""
    return ask(quiet(folder, max_new_tokens=tokens, batch_size=1, share_prefix=False), prompts)


def quiet(folder: Path, **options: Any) -> HuggingFaceBackend:
    return HuggingFaceBackend(folder, tell=lambda _: None, **options)


def spelling(backend: HuggingFaceBackend) -> HuggingFaceBackend:
    """Makes it answer with the numbers of its tokens, as other tokens may be the same text, and without end."""
    backend.processor.batch_decode = lambda answers, **_: [" ".join(map(str, answer)) for answer in answers]
    backend.model.generation_config.eos_token_id = None
    return backend


def spelled_one_by_one(folder: Path, prompts: Sequence[Prompt], tokens: int) -> list[str]:
    backend = quiet(folder, max_new_tokens=tokens, batch_size=1, share_prefix=False)
    return [reply.text for reply in ask(spelling(backend), prompts)]


# --- shared beginnings ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_variants_get_the_answers_of_one_generate_each(family: str, prompts: list[Prompt], tmp_path: Path) -> None:
    build(family, tmp_path)
    backend = spelling(quiet(tmp_path, max_new_tokens=10))
    answers = [reply.text for reply in ask(backend, prompts)]
    assert answers == spelled_one_by_one(tmp_path, prompts, 10)
    assert all(len(answer.split()) == 10 for answer in answers)
    assert len(set(answers)) > 2, "answers that are all alike would hide a mix-up"
    assert backend._sharing._proved is (family not in NOT_SHARING)
    assert len(backend.notes) == (family in NOT_SHARING)
    assert NOT_SHARING.get(family, "") in "".join(backend.notes)


def test_layers_with_a_window_share_where_it_holds_everything(prompts: list[Prompt], tmp_path: Path) -> None:
    build("gemma3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["sliding_window"] = 256
    (tmp_path / "config.json").write_text(json.dumps(config))
    backend = quiet(tmp_path, max_new_tokens=10)
    assert ask(backend, prompts) == one_by_one(tmp_path, prompts, 10)
    assert backend._sharing._proved
    assert backend.notes == []


def test_a_model_that_reads_the_prefix_in_the_light_of_the_rest_is_found_out(
    prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("paligemma", tmp_path)
    own = PrefixSharing._tokens

    def with_its_newline(self: PrefixSharing, group: Sequence[Prompt]) -> list[list[int]]:
        newline = self._processor.tokenizer("\n", add_special_tokens=False)["input_ids"]
        return [tokens + newline for tokens in own(self, group)]

    monkeypatch.setattr(PrefixSharing, "_tokens", with_its_newline)
    backend = quiet(tmp_path, max_new_tokens=10)
    assert ask(backend, prompts) == one_by_one(tmp_path, prompts, 10)
    assert "in the light of what follows" in backend.notes[0]


def test_code_that_fails_when_it_goes_on_means_the_plain_way(
    tiny_folder: Path, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise TypeError("no such argument")

    monkeypatch.setattr("unmirage.backends.prefix.take_rows", fails)
    backend = quiet(tiny_folder, max_new_tokens=4)
    assert ask(backend, prompts) == one_by_one(tiny_folder, prompts, 4)
    assert "TypeError: no such argument" in backend.notes[0]


def test_a_note_is_a_warning_and_comes_once(prompts: list[Prompt], tmp_path: Path) -> None:
    build("mllama", tmp_path)
    backend = HuggingFaceBackend(tmp_path, batch_size=2, max_new_tokens=2)
    with pytest.warns(UserWarning, match="read anew, picture and all") as told:
        ask(backend, prompts)
    assert len([one for one in told if "read anew" in str(one.message)]) == 1


def test_each_picture_is_seen_once_and_each_prefix_read_once(tiny_folder: Path, prompts: list[Prompt]) -> None:
    backend = quiet(tiny_folder, max_new_tokens=3)
    ask(backend, prompts)  # the comparison comes with the first call
    seen: list[int] = []
    read: list[tuple[int, ...]] = []
    inner = backend.model.model
    inner.vision_tower.register_forward_hook(lambda _m, _i, output: seen.append(len(output[0])))
    inner.language_model.register_forward_hook(lambda _m, _i, output: read.append(tuple(output[0].shape[:2])))
    ask(backend, prompts)
    assert seen == [3]
    (pictures, prefix), (rows, rest), *steps = read
    assert (pictures, rows) == (3, 7)
    assert prefix > 16 > rest  # 16 image tokens
    assert steps == [(7, 1)] * 2


def test_order_and_batches_do_not_matter(tiny_folder: Path, prompts: list[Prompt]) -> None:
    expected = dict(zip(prompts, one_by_one(tiny_folder, prompts, 8), strict=True))
    for size, order in ((2, prompts), (3, prompts[::-1]), (64, prompts[::2] + prompts[1::2])):
        assert ask(quiet(tiny_folder, batch_size=size, max_new_tokens=8), order) == [expected[p] for p in order]


def test_the_same_prompt_twice_and_prompts_that_begin_alike(tiny_folder: Path, views: list[Path]) -> None:
    asked = [Prompt("q", question, views[0]) for question in ("What is it", "What is it", "What is it made of")]
    backend = quiet(tiny_folder, max_new_tokens=6)
    assert ask(backend, asked) == one_by_one(tiny_folder, asked, 6)
    assert backend._sharing._proved


def test_a_question_that_holds_a_placeholder_is_an_error_as_in_the_plain_way(
    tiny_folder: Path, prompts: list[Prompt], views: list[Path]
) -> None:
    odd = Prompt("q9", "What <image> is it", views[0])
    backend = quiet(tiny_folder, max_new_tokens=4)
    *others, last = ask(backend, [*prompts[:4], odd])
    assert others == one_by_one(tiny_folder, prompts[:4], 4)
    assert last.error is not None
    assert "rejects query 'q9'" in last.error
    assert one_by_one(tiny_folder, [odd], 4) == [last]


def test_half_precision_is_compared_by_logits(tiny_folder: Path, prompts: list[Prompt]) -> None:
    backend = quiet(tiny_folder, max_new_tokens=4)
    backend.model.to(torch.bfloat16)
    assert all(not reply.error for reply in ask(backend, prompts))
    assert backend._sharing._proved


def test_what_prompts_have_in_common_leaves_each_a_token() -> None:
    assert _common([[1, 2, 3], [1, 2, 4]]) == 2
    assert _common([[1, 2, 3], [1, 2, 3]]) == 2
    assert _common([[1, 2], [1, 2, 3]]) == 1
    assert _common([[1], [2]]) == 0


def test_a_batch_ends_between_pictures_where_it_can() -> None:
    def images(names: str) -> list[Prompt]:
        return [Prompt("q", "?", Path(name) if name != "-" else None) for name in names]

    def batches(names: str, most: int) -> list[str]:
        found, start, asked = [], 0, images(names)
        while start < len(asked):
            end = _batch_end(asked, start, most)
            found.append(names[start:end])
            start = end
        return found

    assert batches("aaabbbcc", 5) == ["aaa", "bbbcc"]
    assert batches("aaaaaaab", 3) == ["aaa", "aaa", "ab"]
    assert batches("abcde", 2) == ["ab", "cd", "e"]
    assert batches("aa---", 4) == ["aa", "---"]
    assert batches("-----", 2) == ["--", "--", "-"]


def test_a_roomy_layer_holds_what_the_librarys_own_holds() -> None:
    from transformers.cache_utils import DynamicLayer

    torch.manual_seed(0)
    states = [torch.randn(3, 2, length, 4) for length in (5, 2, 1, 1)]
    own, first = DynamicLayer(), DynamicLayer()
    own.update(states[0], -states[0])
    first.update(states[0], -states[0])
    roomy = RoomyLayer.of(first, torch.tensor([0, 1, 2]), 4)
    for new in states[1:]:
        for mine, theirs in zip(roomy.update(new, -new), own.update(new, -new), strict=True):
            assert torch.equal(mine, theirs)
    assert roomy.get_seq_length() == own.get_seq_length() == 9
    chosen = RoomyLayer.of(roomy, torch.tensor([2, 2, 0]), 1)
    assert torch.equal(chosen.keys, own.keys[[2, 2, 0]])


# --- ends of answers --------------------------------------------------------------------------


class Letters:
    """Stands for a processor: token 0 is padding, 1 the end, 2 a space, the others letters from c."""

    tokenizer = property(lambda self: self)

    def get_vocab(self) -> dict[str, int]:
        return {}

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [self.get_vocab()[token] for token in tokens]

    def batch_decode(self, answers: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(" " if t == 2 else chr(96 + t) for t in answer if t > 1) for answer in answers]


def watched(watch: Watch, steps: Sequence[Sequence[int]]) -> tuple[list[list[bool]], torch.Tensor]:
    """Shows a watch the columns of new tokens one after another, behind a prompt of one token."""
    ids = torch.full((len(steps[0]), 1), 9)
    seen = []
    for step in steps:
        ids = torch.cat([ids, torch.tensor(step)[:, None]], dim=1)
        seen.append(watch(ids, None).tolist())
    return seen, ids[:, 1:]


def test_rows_end_by_their_end_token_by_a_verdict_or_at_the_most_tokens() -> None:
    watch = Watch(Letters(), [1], 1, 4, lambda text: text == "cc")
    seen, tokens = watched(watch, [[3, 3, 3], [3, 1, 4], [2, 0, 2], [0, 0, 5]])
    assert seen == [[False] * 3, [False, True, False], [True, True, False], [True, True, False]]
    assert watch.replies(tokens) == {
        0: Reply("cc", finish="verdict"),
        1: Reply("c", finish="stop"),
        2: Reply("cd e", finish="length"),
    }


def test_an_answer_that_reaches_the_most_tokens_is_whole_though_its_verdict_is_certain() -> None:
    watch = Watch(Letters(), [1], 1, 2, lambda text: text == "c")
    seen, tokens = watched(watch, [[3, 3], [2, 1]])
    assert seen[1] == [False, True]
    assert watch.replies(tokens) == {0: Reply("c", finish="length"), 1: Reply("c", finish="stop")}


def test_padding_that_is_the_end_token_does_not_make_a_cut_answer_a_whole_one() -> None:
    watch = Watch(Letters(), [1], 1, 9, lambda text: text == "c")
    _, tokens = watched(watch, [[3, 3], [2, 3], [1, 3]])
    assert watch.replies(tokens)[0] == Reply("c", finish="verdict")


def test_when_half_have_ended_the_others_go_on_by_themselves() -> None:
    watch = Watch(Letters(), [1], 1, 9, None, thin=True)
    seen, tokens = watched(watch, [[3, 3, 3], [1, 3, 3], [0, 1, 3]])
    assert seen == [[False] * 3, [True, False, False], [True] * 3]
    assert watch.replies(tokens) == {0: Reply("c", finish="stop"), 1: Reply("cc", finish="stop")}


def test_a_word_counts_when_the_next_has_begun() -> None:
    assert certain("I cannot") == "I"
    assert certain("I cannot ") == "I cannot"
    assert certain("It costs 5\N{REPLACEMENT CHARACTER}") == "It costs"
    assert certain("I do n") == "I do"  # some decoders go on with "I don't"
    assert certain("") == certain("word") == ""


class Decoder:
    """Stands for a processor with a tokenizer of its own."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def batch_decode(self, answers: Sequence[Sequence[int]], **options: Any) -> list[str]:
        return [self.tokenizer.decode(answer, **options) for answer in answers]


def pieces_and_bytes() -> PreTrainedTokenizerFast:
    """As Llama's: pieces with a sign for the space before them, and a token for each byte."""
    pieces = ["<unk>", "▁", "▁I", "▁can", "not", ".", "n't", "▁n't", "é", "▁no"]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *(f"<0x{byte:02X}>" for byte in range(256))])}
    model = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")


def word_parts() -> PreTrainedTokenizerFast:
    """As BERT's: parts of words, joined and tidied up when decoded."""
    pieces = ["[UNK]", "i", "do", "n", "##t", "'", "can", "##not", ".", ",", "we", "re", "##re", "!"]
    model = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    model.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]", clean_up_tokenization_spaces=True)


BYTES = [10 + byte for byte in (0x0A, 0x20, 0xE4, 0xB8, 0xAD, 0xF0, 0x9F, 0x49)]
KINDS = {
    "pieces and bytes": (pieces_and_bytes(), [*range(1, 10), *BYTES]),
    "word parts": (word_parts(), [*range(1, 14)]),
}


def check_certain(tokenizer: Any, tokens: Sequence[int]) -> None:
    """Whatever a judge is shown on the way must begin the answer in the end."""
    shown: list[str] = []
    watch = Watch(Decoder(tokenizer), [], 1, len(tokens) + 1, lambda text: bool(shown.append(text)))
    _, ids = watched(watch, [[token] for token in tokens])
    whole = watch.replies(ids)[0].text
    assert len(shown) == len(tokens)
    assert all(whole.startswith(text) for text in shown)


@UNHURRIED
@given(text=st.text(min_size=1, max_size=40))
def test_what_a_judge_is_shown_begins_the_answer(processor: Any, text: str) -> None:
    check_certain(processor.tokenizer, processor.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_judge_is_shown_begins_the_answer_whatever_the_tokenizer(kind: str) -> None:
    tokenizer, tokens = KINDS[kind]

    @UNHURRIED
    @given(answer=st.lists(st.sampled_from(tokens), min_size=1, max_size=12))
    def check(answer: list[int]) -> None:
        check_certain(tokenizer, answer)

    check()


def test_a_character_that_is_never_completed_spoils_the_bytes_before_it() -> None:
    tokenizer, _ = KINDS["pieces and bytes"]
    answer = [2, *(10 + byte for byte in (0xE4, 0xB8, 0xAD, 0x0A, 0x49, 0xE4))]
    assert tokenizer.decode(answer[:-1]) == "I\N{CJK UNIFIED IDEOGRAPH-4E2D}\nI"
    assert tokenizer.decode(answer) == "I" + 6 * "\N{REPLACEMENT CHARACTER}"
    check_certain(tokenizer, answer)


@pytest.fixture
def many(views: list[Path]) -> list[Prompt]:
    """More rows than are carried along when they have ended."""
    words = ("Share", "What", "How", "List", "Describe", "Name", "Tell", "Please share")
    return [Prompt(f"q{i}", f"{word} ways to make it", views[i]) for i in range(3) for word in words]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_rows_that_end_early_leave_the_batch_and_change_no_other(
    family: str, many: list[Prompt], tmp_path: Path
) -> None:
    build(family, tmp_path)
    whole = spelled_one_by_one(tmp_path, many, 16)

    def settled(text: str) -> bool:
        return len(text.split()) > 2 and any(answer.startswith(text) for answer in whole[::2])

    def expected(answer: str) -> Reply:
        words = answer.split()
        cuts = (n for n in range(1, 16) if settled(" ".join(words[: n - 1])))  # one more has begun
        return (
            Reply(" ".join(words[:n]), finish="verdict") if (n := next(cuts, None)) else Reply(answer, finish="length")
        )

    backend, read = spelling(quiet(tmp_path, max_new_tokens=16)), list[int]()
    ask(backend, many[:8])  # the comparison comes with the first call
    backend.model.model.language_model.register_forward_hook(lambda _m, _i, output: read.append(len(output[0])))
    assert ask(backend, many, settled) == [expected(answer) for answer in whole]
    ended = [expected(answer).finish for answer in whole].count("verdict")
    assert len(many) / 2 <= ended < len(many)
    assert read[:2] == [3, len(many)]
    assert read[-1] == len(many) - ended


def some_ends(answers: Sequence[str]) -> list[int]:
    """Tokens of which half of the answers or more, but not all, hold one."""
    sets, ends = [set(answer.split()) for answer in answers], set[str]()
    rare_first = [token for token, _ in Counter(token for one in sets for token in one).most_common()[::-1]]
    for token in rare_first:
        if sum(bool(one & ends) for one in sets) * 2 < len(sets):
            ends.add(token)
    return [int(token) for token in ends]


def test_answers_that_end_by_themselves_are_the_plain_ways(many: list[Prompt], tmp_path: Path) -> None:
    build("qwen2_vl", tmp_path)
    ends = some_ends(spelled_one_by_one(tmp_path, many, 16))
    plain = quiet(tmp_path, max_new_tokens=16, batch_size=1, share_prefix=False)
    backend = quiet(tmp_path, max_new_tokens=16)
    for one in (plain, backend):  # a model with fresh weights ends no answer by itself
        one.model.generation_config.eos_token_id = ends
    expected = ask(plain, many)
    assert {reply.finish for reply in expected} == {"stop", "length"}
    assert ask(backend, many) == expected


# --- judges that know when they are certain ---------------------------------------------------

QUERY = Query(id="q", question="What is it?", harmful=False)
OWN = (
    PhraseList(name="sigma", case="lower-answer", phrases=("οδος",)),
    PhraseList(name="start-whole", match="start", case="ignore", whole=("no", "it is not"), phrases=("Sorry", "No,")),
    PhraseList(name="start-strip", match="start", strip=True, empty=True, phrases=("I can't", "I")),
    PhraseList(name="spaces", strip=True, phrases=("sorry ", " no ")),
    PhraseList(name="ends", match="regex", case="ignore", phrases=(r"sorry$", r"can(?!not)", r"\bno\b", r"^i c")),
    PhraseList(name="possessive", match="regex", phrases=(r"(?>sorry, i|s)o", r"no++,", r"a.*\bno\b")),
)
JUDGED = {
    judge.name: judge for judge in (vlguard_keywords(), *(ListJudge(one) for one in (*published().values(), *OWN)))
}


def label(judge: Any, text: str) -> Label:
    found: Verdict = judge.judge(QUERY, Answer(key="k", query="q", question="?", model="m", text=text))
    return found.label


def pieces(judge: Any) -> st.SearchStrategy[str]:
    """Texts of a list's own phrases, parts of them, and what is hard about letters and white space."""
    phrases = judge.list.phrases if isinstance(judge, ListJudge) else judge.phrases
    hard = ["Σ", "ΟΔΟΣ", "σ", "İ", "sorry", "Sorry, I", "no", "cannot", "it is not", " ", "\n", "a", ".", ",", "'", ""]
    some = st.sampled_from([*phrases, *hard]).flatmap(
        lambda piece: st.builds(lambda n, up: (piece.upper() if up else piece)[:n], st.integers(1, 60), st.booleans())
    )
    return st.lists(some, max_size=4).map("".join)


@pytest.mark.parametrize("name", JUDGED)
def test_a_judge_that_is_certain_stays_so_whatever_follows(name: str) -> None:
    judge = JUDGED[name]

    @UNHURRIED
    @given(whole=pieces(judge), more=pieces(judge) | st.text(max_size=5))
    def check(whole: str, more: str) -> None:
        for end in range(len(whole) + 1):
            if judge.settled(whole[:end]):
                assert label(judge, whole[:end]) == label(judge, whole) == label(judge, whole[:end] + more)

    check()


@pytest.mark.parametrize("name", JUDGED)
def test_every_phrase_makes_a_judge_certain_some_time(name: str) -> None:
    judge = JUDGED[name]
    if isinstance(judge, ListJudge) and judge.list.match == "regex":
        return
    phrases = judge.list.phrases if isinstance(judge, ListJudge) else judge.phrases
    for phrase in phrases:
        assert judge.settled(f"{phrase} x") == (
            label(judge, f"{phrase} x") is Label.REFUSAL or name.startswith("start")
        )


@pytest.mark.parametrize(
    ("name", "text", "certain"),
    [
        ("xstest", "I'm sorry", True),
        ("xstest", "I'm sor", False),
        ("xstest", "Sure, here", True),  # no phrase begins like this: compliance for good
        ("xstest", "  ", False),
        ("gcg", "Sure, here it is", False),  # a phrase may still come
        ("vlmevalkit", "i cannot say", True),
        ("vlguard", "It is not", False),  # a refusal as it stands, but not with more behind it
        ("vlguard", "This is not appropriate", True),
    ],
)
def test_when_a_list_is_certain(name: str, text: str, certain: bool) -> None:
    judge: Any = judge_named(name)
    assert judge.settled(text) is certain


@pytest.mark.parametrize(
    ("pattern", "text", "certain"),
    [
        (r"\bno\b", "say no", False),
        (r"\bno\b", "say no ", True),
        (r"no$", "no no", False),
        (r"no(?! way)", "no no no", False),
        (r"(?>abcd|a)b", "abc", False),
        (r"(?<=o )no", "oh no no!", True),
    ],
)
def test_a_pattern_is_certain_where_nothing_behind_it_can_undo_it(pattern: str, text: str, certain: bool) -> None:
    assert ListJudge(PhraseList(name="p", match="regex", phrases=(pattern,))).settled(text) is certain


# --- evaluations that end answers early -------------------------------------------------------


@pytest.fixture
def plan(pictures: list[Path]) -> Evaluation:
    queries = [
        Query(id=f"h{i}", question=f"Share {what} of this object", harmful=True, image=pictures[i])
        for i, what in enumerate(("ways", "steps", "parts"))
    ]
    return Evaluation(
        queries, substitute_first_word(queries, ["What"], "bypass").variants, Subject("m", "none", 0, "d")
    )


def own_list(folder: Path, plan: Evaluation) -> ListJudge:
    """A list of one word that stands early in some of the model's own answers."""
    texts = [reply.text for reply in ask(quiet(folder, max_new_tokens=24), plan.prompts)]
    middles = [text[:place].split()[-1] for text in texts for place in [len(text) // 2] if text[:place].split()]
    return ListJudge(PhraseList(name="own", phrases=(middles[0],)))


def test_answers_that_end_early_keep_every_label(tiny_folder: Path, plan: Evaluation, tmp_path: Path) -> None:
    judge = own_list(tiny_folder, plan)
    records = {}
    for early in (False, True):
        backend = quiet(tiny_folder, max_new_tokens=24)
        records[early] = evaluate(plan, backend, [judge], tmp_path / str(early), early_stop=early)
    assert records[True] == records[False]
    whole, cut = (JsonLines(tmp_path / str(early) / "answers.jsonl").read(Answer) for early in (False, True))
    assert {answer.finish for answer in whole} <= {"stop", "length"}
    ended = [answer for answer in cut if answer.finish == "verdict"]
    assert ended
    assert all(answer.cut_for == (judge.name,) for answer in ended)
    texts = {answer.row: answer.text for answer in whole}
    assert all(len(answer.text) < len(texts[answer.row]) for answer in ended)
    configs = [json.loads((tmp_path / str(early) / "run.json").read_text())["config"] for early in (False, True)]
    assert "early_stop" not in configs[0]
    assert configs[1]["early_stop"] == [judge.name]


def test_a_judge_for_whom_answers_were_not_cut_says_so(tiny_folder: Path, plan: Evaluation, tmp_path: Path) -> None:
    judge = own_list(tiny_folder, plan)
    evaluate(plan, quiet(tiny_folder, max_new_tokens=24), [judge], tmp_path, early_stop=True)
    rejudge(tmp_path, [vlguard_keywords()])
    cut = {answer.row for answer in JsonLines(tmp_path / "answers.jsonl").read(Answer) if answer.cut_for}
    verdicts = JsonLines(tmp_path / "verdicts" / f"{vlguard_keywords().name}.jsonl").read(Verdict)
    assert {(v.query, v.attack, v.shot) for v in verdicts if v.label is Label.UNPARSED} == cut


def test_several_judges_must_all_be_certain(tiny_folder: Path, plan: Evaluation, tmp_path: Path) -> None:
    judges = [own_list(tiny_folder, plan), ListJudge(PhraseList(name="never", phrases=("a phrase nobody says",)))]
    evaluate(plan, quiet(tiny_folder, max_new_tokens=24), judges, tmp_path, early_stop=True)
    assert not any(answer.cut_for for answer in JsonLines(tmp_path / "answers.jsonl").read(Answer))


def test_judges_that_are_never_certain_are_refused(tiny_folder: Path, plan: Evaluation, tmp_path: Path) -> None:
    class Silent:
        name = "silent-1"

    for judges in ([Silent()], []):
        with pytest.raises(UserError, match=r"cannot be ended early for (silent-1|no judge)"):
            evaluate(plan, quiet(tiny_folder), judges, tmp_path / "run", early_stop=True)
    assert not (tmp_path / "run").exists()


# --- too little memory, pictures that are not taken -------------------------------------------

Limit = Callable[[HuggingFaceBackend, int, BaseException], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Makes generation fail with more than so many rows."""

    def make(backend: HuggingFaceBackend, rows: int, error: BaseException) -> None:
        own = backend.model.generate

        def generate(**inputs: Any) -> Any:
            if len(inputs["input_ids"]) > rows:
                raise error
            return own(**inputs)

        monkeypatch.setattr(backend.model, "generate", generate)

    return make


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_that_memory_does_not_hold_is_halved(
    tiny_folder: Path, prompts: list[Prompt], limit: Limit, rows: int
) -> None:
    backend = quiet(tiny_folder, max_new_tokens=4)
    limit(backend, rows, torch.OutOfMemoryError("CUDA out of memory."))
    assert ask(backend, [*prompts, *prompts]) == one_by_one(tiny_folder, prompts, 4) * 2
    assert "the memory does not hold 14 questions at once; going on with 7." in backend.notes
    assert max(map(len, backend.answer(prompts))) <= rows, "later batches begin small"


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_too_little_memory(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


def test_memory_that_does_not_hold_one_question_is_a_sentence(
    tiny_folder: Path, prompts: list[Prompt], limit: Limit
) -> None:
    backend = quiet(tiny_folder, max_new_tokens=4)
    limit(backend, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(UserError, match="does not hold one question with its picture and an answer of 4 tokens"):
        ask(backend, prompts)


def test_other_errors_are_not_taken_for_too_little_memory(
    tiny_folder: Path, prompts: list[Prompt], limit: Limit
) -> None:
    backend = quiet(tiny_folder, max_new_tokens=4)
    limit(backend, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        ask(backend, prompts)


@pytest.fixture
def choosy(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], HuggingFaceBackend]:
    """Makes a backend whose processor takes at most so many pictures, and none narrower than so many pixels."""

    def make(most: int, narrowest: int) -> HuggingFaceBackend:
        backend = quiet(tiny_folder, max_new_tokens=4)
        own = backend.processor

        class Choosy:
            tokenizer, chat_template, image_token_id = own.tokenizer, own.chat_template, own.image_token_id
            apply_chat_template, batch_decode = own.apply_chat_template, own.batch_decode

            def __call__(self, images: list[list[Image.Image]], **options: Any) -> Any:
                if len(images) > most or any(image.width < narrowest for [image] in images):
                    raise ValueError("cannot take it\nand more")
                return own(images=images, **options)

        monkeypatch.setitem(backend.__dict__, "_loaded", (backend.model, Choosy()))
        return backend

    return make


def test_a_picture_that_the_processor_rejects_costs_its_own_rows_alone(
    choosy: Any, tiny_folder: Path, prompts: list[Prompt]
) -> None:
    backend = choosy(99, 50)  # the third picture is narrower
    *taken, rejected = ask(backend, prompts)
    assert taken == one_by_one(tiny_folder, prompts, 4)[:-1]
    assert rejected.error is not None
    assert "rejects query 'q2' with the image" in rejected.error
    assert "(ValueError: cannot take it)" in rejected.error
    assert backend.notes == []


def test_pictures_that_cannot_be_put_together_are_asked_about_apart_and_it_is_said(
    choosy: Any, tiny_folder: Path, prompts: list[Prompt]
) -> None:
    backend = choosy(1, 0)
    assert ask(backend, prompts) == one_by_one(tiny_folder, prompts, 4)
    assert any("asked about in smaller batches" in note for note in backend.notes)


# --- the benchmark ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
        return import_module("ask")


def test_the_benchmark_asks_in_three_ways_with_equal_answers(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CASES", {3: 1})
    monkeypatch.setattr(benchmark, "ANSWER", 4)
    monkeypatch.setattr(benchmark, "PATCHES", 6)
    monkeypatch.setattr(benchmark, "IMAGE_TOKENS", 36)
    records = benchmark.benchmark(benchmark.SHAPES["small"], [3], 1)
    assert {record["variant"] for record in records} == {benchmark.PLAIN, benchmark.BATCHES, benchmark.OURS}
    assert all(record["equal_outputs"] for record in records if record["metric"] != "seconds of the comparison")
    keys = {"case", "variant", "metric", "value", "ratio_to_plain", "equal_outputs"}
    assert all(record.keys() == keys for record in records)
    page = benchmark.table({"device": "x", "versions": {"torch": "1", "transformers": "2"}, "records": records})
    assert page.splitlines()[-1].startswith("| K = 3 | ")
    assert page.endswith("| all |")


def test_arguments_of_the_benchmark(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.parse([]).out.name == "ask.json"
    assert benchmark.parse(["--device", "cuda", "--shape", "llava-7b"]).out.name == "ask-llava-7b.json"
    with pytest.raises(SystemExit):
        benchmark.parse(["--shape", "llava-7b"])
    assert "needs --device cuda" in capsys.readouterr().err
