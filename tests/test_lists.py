"""Published lists match as their authors' code does, and a user's own list is read or refused in one sentence."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmirage.errors import UserError
from unmirage.judges.keywords import VLGUARD_PHRASES, vlguard_keywords
from unmirage.judges.lists import ListJudge, PhraseList, published, read_list
from unmirage.judges.registry import JUDGES, judge_named, judges_named
from unmirage.schema import Answer, Label, Query

QUERY = Query(id="q", question="What is it?", harmful=False)


def label(name: str, text: str) -> Label:
    answer = Answer(key="k", query="q", question="?", model="m", text=text)
    return judge_named(name).judge(QUERY, answer).label


@pytest.mark.parametrize(
    ("name", "text", "refuses"),
    [
        ("gcg", "Well, I cannot say.", True),  # anywhere
        ("gcg", "well, i CANNOT say.", False),  # as written
        ("gcg", "Hello! The lamp is red.", True),  # a false alarm of the list
        ("jailbreakbench", "Sorry", True),
        ("jailbreakbench", "sorry", False),
        ("harmbench", "That would be illegal.", True),
        ("harmbench-check-refusal", "as a LANGUAGE model", True),  # case ignored on both sides
        ("xstest", "  I'm sorry, no", True),  # at the start, white space aside
        ("xstest", "No, it is red", True),
        ("xstest", "Well, I'm sorry", False),
        ("lmms-eval", "", True),
        ("lmms-eval", "  ", True),
        ("xstest", "", False),
        ("gcg", "", False),
        ("vlmevalkit", "I WON'T", True),  # regular expressions on the lower-cased answer
        ("vlmevalkit", "hi cannot", False),
        ("vlmevalkit", "im sorry", True),
        ("vlmevalkit", "him sorry", False),
        ("garak-prefixes", "i'M SORRY", True),
        ("autodan-paper", "i'm sorry", False),
    ],
)
def test_each_list_has_its_own_matching_rule(name, text, refuses):
    assert label(name, text) is (Label.REFUSAL if refuses else Label.COMPLIANCE)


def test_every_list_says_where_it_comes_from_and_may_be_passed_on():
    sizes = {name: len(one.phrases) for name, one in published().items()}
    assert sizes == {
        "harmbench": 29, "harmbench-check-refusal": 67, "jailbreakbench": 13, "gcg": 7, "gcg-demo": 10,
        "gcg-closed": 50, "autodan-paper": 28, "autodan": 39, "intention": 27, "lapid": 6, "xstest": 21,
        "garak": 156, "garak-prefixes": 27, "lmms-eval": 21, "vlmevalkit": 12,
    }  # fmt: skip
    for one in published().values():
        assert one.source
        assert re.match(r"MIT|Apache-2\.0|CC-BY-4\.0", one.licence)


@given(st.text(max_size=80) | st.sampled_from([f"So: {phrase.upper()}!" for phrase in VLGUARD_PHRASES]))
def test_vlguards_list_in_a_file_decides_as_the_built_in_judge(text):
    mine = ListJudge(PhraseList(name="mine", case="lower-answer", whole=("it is not",), phrases=VLGUARD_PHRASES))
    assert (mine.match(text) is None) == (vlguard_keywords().match(text) is None)


def test_the_name_holds_the_rule_and_the_phrases():
    one = PhraseList(name="mine", phrases=("no",))
    names = {
        ListJudge(one.model_copy(update=change)).name
        for change in ({}, {"case": "ignore"}, {"match": "start"}, {"phrases": ("nope",)}, {"strip": True})
    }
    assert len(names) == 5
    assert ListJudge(one.model_copy(update={"about": "x", "source": "y"})).name == ListJudge(one).name


def test_a_list_from_a_text_file(tmp_path):
    file = tmp_path / "My List.txt"
    file.write_text("i cannot\n\n  no way \n")
    judge = read_list(file)
    assert judge.name.startswith("my-list-list-")
    assert judge.match("Oh, NO WAY.") == "no way"
    assert judge.match("yes") is None


@pytest.mark.parametrize("name", ["mine.txt", "mine.json"])
def test_a_byte_order_mark_is_no_part_of_a_list(tmp_path, name):
    content = "i cannot\nno way" if name == "mine.txt" else '{"name": "mine", "phrases": ["i cannot", "no way"]}'
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / name).write_text(content, encoding=encoding)
        assert read_list(tmp_path / name).list.phrases == ("i cannot", "no way")


def test_white_space_around_a_phrase_belongs_to_it(tmp_path):
    (tmp_path / "list.json").write_text('{"name": "x", "phrases": [" no "]}')
    judge = read_list(tmp_path / "list.json")
    assert (judge.match("oh no way"), judge.match("nobody")) == (" no ", None)


def test_a_list_from_a_json_file(tmp_path):
    file = tmp_path / "list.json"
    file.write_text(json.dumps({"name": "short", "match": "regex", "case": "ignore", "phrases": ["^no+$"]}))
    assert read_list(file).match("NOOO") == "^no+$"
    assert read_list(file).match("no, it is red") is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.txt", None, "cannot be read"),
        ("empty.txt", "\n", "field 'phrases'"),
        ("list.json", "[1]", "list.json, field 'file'"),
        ("list.json", '{"name": "x", "phrases": []}', "field 'phrases'"),
        ("list.json", '{"name": "x", "phrases": ["no", ""]}', r"field 'phrases\.1': the phrase is empty"),
        ("list.json", '{"name": "x", "phrases": [" "]}', r"field 'phrases\.0': the phrase is empty"),
        ("list.json", '{"name": "X Y", "phrases": ["no"]}', "field 'name'"),
        ("list.json", '{"name": "x", "phrases": ["no"], "colour": 1}', "field 'colour'"),
        ("list.json", '{"name": "x", "match": "regex", "phrases": ["(no"]}', r"'\(no' is no regular expression"),
        ("list.txt", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_broken_list_is_one_sentence(tmp_path, name, content, said):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said):
        read_list(file)


def test_judges_by_name():
    scored = {"choice", "vqa", "vqa-official", "vqa-textvqa", "vqa-vizwiz"}
    assert {"rules", "vlguard", "keywords", "truth", *scored, *published()} == set(JUDGES)
    assert [judge.name for judge in judges_named(["vlguard", "keywords", "vlguard"])] == [vlguard_keywords().name]
    assert judge_named("vlguard") == vlguard_keywords()
    with pytest.raises(UserError, match="no judge is called 'wise'; choose among rules, vlguard"):
        judge_named("wise")
    with pytest.raises(UserError, match="--data"):
        judge_named("truth")
