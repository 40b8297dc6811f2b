"""The benchmark of unlearning steps: its cases build, its plain way agrees with ours, its tables say what was found."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

pytest.importorskip("peft")
FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return import_module("align")


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def test_arguments(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.parse([]).out == FOLDER / "results" / "align.json"
    large = benchmark.parse(["--device", "cuda", "--shape", "llava-7b"])
    assert large.out == FOLDER / "results" / "align-llava-7b.json"
    assert benchmark.parse(["--case", "NPO, LoRA"]).case == ["NPO, LoRA"]
    with pytest.raises(SystemExit):
        benchmark.parse(["--shape", "llava-7b"])
    assert "needs --device cuda" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        benchmark.parse(["--case", "ORPO"])


@pytest.mark.parametrize("name", ["small", "llava-7b"])
def test_the_shapes_have_the_proportions_of_llava(benchmark: Any, name: str) -> None:
    shape = benchmark.SHAPES[name]
    config = benchmark.model_config(shape)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    if name == "llava-7b":
        assert 6.9e9 < parameters(model) < 7.2e9
        assert config.image_seq_length == 576
    layers, tower = model.get_decoder().layers, model.get_encoder(modality="image")
    assert len(layers) == 32
    images = config.image_seq_length
    tokens = images / 0.8  # four of five tokens are the picture's
    share = parameters(tower.encoder) * (images + 1) / (parameters(layers) * tokens)
    assert 0.03 < share < 0.05, "the tower costs about 4% of the decoder"
    head = parameters(model.get_output_embeddings()) / parameters(layers)
    assert 0.015 < head < 0.025, "the output head costs about 2%"


def test_the_small_shapes_batch_is_mostly_pictures(benchmark: Any, tmp_path: Path) -> None:
    shape = benchmark.SHAPES["small"]
    data = benchmark.rows(shape, tmp_path)["forget"]
    encoded = [benchmark.Encoded(benchmark.build_processor(shape), [query])[0] for query in data]
    lengths = [len(sample["input_ids"]) for sample in encoded]
    assert all(sample["image_mask"].sum() == 144 for sample in encoded)
    assert all(170 <= length <= 200 for length in lengths), lengths
    assert len(set(lengths)) > 1


def test_all_our_ways_equal_the_plain_one(benchmark: Any, tmp_path: Path) -> None:
    shape = replace(benchmark.SHAPES["small"], hidden=32, inner=64, layers=9, tower=(32, 64, 2, 2), side=56, batch=2)
    for case in benchmark.CASES:
        results = []
        for variant in (benchmark.PLAIN, benchmark.ALL_RECOMPUTED, benchmark.ALL):
            way = benchmark.way_of(case, variant, shape, tmp_path, "cpu")
            results.append((way.step().item(), benchmark.gradients(way.network)))
        for loss, gradients in results[1:]:
            assert loss == pytest.approx(results[0][0], rel=1e-5), case.name
            assert benchmark.difference(gradients, results[0][1]) < 1e-5, case.name
        assert sum(float(g.norm()) for g in results[0][1].values()) > 1e-3


def test_a_difference_is_seen(benchmark: Any) -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1e-9])}
    assert benchmark.difference(one, one) == 0
    assert benchmark.difference({**one, "a": torch.tensor([1.0, 2.1])}, one) > 0.04
    assert benchmark.difference({**one, "b": torch.tensor([2e-9])}, one) < 1e-5, "rounding beside gradients of 1"
    assert benchmark.difference({"a": one["a"]}, one) == float("inf")


def measured(benchmark: Any, variant: Any, seconds: list[float], peak: float, gradient: float = 1.0) -> Any:
    return benchmark.Measured(variant, seconds, 2 * peak, peak, 2.0, {"w": torch.tensor([gradient])})


def test_records_and_table(benchmark: Any, tmp_path: Path) -> None:
    case, wrong = benchmark.CASES[0], replace(benchmark.ALL, name="wrong")
    found = [
        measured(benchmark, benchmark.PLAIN, [4.0, 8.0, 6.0], 1500.0),
        measured(benchmark, benchmark.ALL, [1.0, 2.0, 3.0], 500.0),
        measured(benchmark, wrong, [1.0, 1.0, 1.0], 500.0, gradient=1.1),
        benchmark.Measured(benchmark.PLAIN_KEPT),
    ]
    records = benchmark.records_of(case, found, "cpu")
    by = {(record["variant"], record["metric"]): record for record in records}
    ours = by["all", "seconds a step"]
    assert (ours["value"], ours["ratio_to_plain"], ours["equal_outputs"]) == (2.0, 4.0, True)  # of 4, 4 and 2
    assert by["all", "peak of tensors in MiB"]["ratio_to_plain"] == 3.0
    assert by["wrong", "seconds a step"]["equal_outputs"] is False
    none = by["plain, no checkpointing", "seconds a step"]
    assert none["value"] is none["ratio_to_plain"] is none["equal_outputs"] is None
    assert {"case", "variant", "metric", "value", "ratio_to_plain", "equal_outputs"} == set(none)

    result = {"schema": 1, "device": "some device", "versions": {"torch": "2", "transformers": "5"}, "records": records}
    (tmp_path / "align.json").write_text(json.dumps(result))
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- table align -->\nold\n<!-- end -->\n\nAfter.\n")
    benchmark.write_tables(page, tmp_path)
    text = page.read_text()
    assert "| RMU, full | all | 2.000 | 4.00 | 500 | 3.00 | 1,000 | yes |" in text
    assert "| RMU, full | wrong | 1.000 | 6.00 | 500 | 3.00 | 1,000 | **no** |" in text
    assert "| RMU, full | plain, no checkpointing | out of memory |" in text
    assert "some device" in text
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    assert "old" not in text
    benchmark.write_tables(page, tmp_path)
    assert page.read_text() == text


def test_the_page_shows_the_results_that_are_kept(benchmark: Any, tmp_path: Path) -> None:
    copy = tmp_path / "performance.md"
    copy.write_text(benchmark.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    benchmark.write_tables(copy, FOLDER / "results")
    assert copy.read_text(encoding="utf-8") == benchmark.PAGE.read_text(encoding="utf-8"), (
        "write it with: python benchmarks/align.py --table"
    )


def test_processes_take_turns_and_memory_is_measured(benchmark: Any) -> None:
    shape = replace(benchmark.SHAPES["small"], hidden=32, inner=64, layers=9, tower=(32, 64, 2, 2), side=56, batch=2)
    case = replace(benchmark.CASES[0], single=())
    found = benchmark.measure(case, shape, "cpu", 2)
    assert [len(one.seconds) for one in found] == [2, 2, 2, 2]
    records = benchmark.records_of(case, found, "cpu")
    assert all(record["equal_outputs"] for record in records)
    assert all(record["value"] >= 0 for record in records)
    again = benchmark.records_of(case, benchmark.measure(case, shape, "cpu", 1), "cpu")
    exact = [[r["value"] for r in some if r["metric"] == "peak of tensors in MiB"] for some in (records, again)]
    assert exact[0] == exact[1]
    assert exact[0][-1] < exact[0][1], "without a second copy and the layers above"
