"""Lines of text: tokens by the model's tokenizer, or the text itself."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from onnxpress.data import load_samples
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec

WORDS = {"[PAD]": 7, "[UNK]": 1, "a": 2, "bird": 3, "sings": 4}
IDS = InputSpec("input_ids", "int64", ("batch", "length"))
MASK = InputSpec("attention_mask", "int64", ("batch", "length"))
TEXT = InputSpec("text", "object", ("batch", 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two lines of text and a tokenizer of words."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "lines.txt").write_text("a bird sings\n\n  sings a fish  \n", encoding="utf-8")
    return tmp_path


def test_each_line_is_a_sample_of_its_own_length(folder: Path) -> None:
    (folder / "lines.txt").write_text("a bird\nsings\n")
    samples = load_samples(folder / "lines.txt", [IDS, MASK])
    assert [feed["input_ids"].tolist() for feed in samples] == [[[2, 3]], [[4]]]
    assert [feed["attention_mask"].tolist() for feed in samples] == [[[1, 1]], [[1]]]
    assert any("each as long as it is" in note for note in samples.notes)


def test_tokens_go_to_the_only_input_that_can_take_them_whatever_its_name(folder: Path) -> None:
    x = InputSpec("x", "int64", ("batch", "length"))
    samples = load_samples(folder / "lines.txt", [x, MASK])
    assert samples.feeds[0]["x"].tolist() == [[2, 3, 4]]
    with pytest.raises(DataError, match="told by their names"):
        load_samples(folder / "lines.txt", [x, InputSpec("y", "int64", ("batch", "length"))])


def test_a_model_of_pictures_is_not_asked_for_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a bird\n")
    with pytest.raises(DataError, match=r"the model wants image: float32\[1, 3, 8, 8\]"):
        load_samples(tmp_path, [InputSpec("image", "float32", (1, 3, 8, 8))])


def test_fixed_length_is_filled_up_and_cut(folder: Path) -> None:
    specs = [
        InputSpec("input_ids", "int32", (1, 2)),
        InputSpec("mask", "int32", (1, 2)),
        InputSpec("token_type_ids", "int32", (1, 2)),
        InputSpec("position_ids", "int32", (1, 2)),
    ]
    (folder / "lines.txt").write_text("sings\na bird sings\n")
    first, second = load_samples(folder, specs).feeds
    assert first["input_ids"].tolist() == [[4, 7]]
    assert first["mask"].tolist() == [[1, 0]]
    assert first["position_ids"].tolist() == [[0, 1]]
    assert second["input_ids"].tolist() == [[2, 3]]
    assert second["input_ids"].dtype == "int32"


def test_strings_are_fed_as_they_are(folder: Path) -> None:
    samples = load_samples(folder / "lines.txt", [TEXT])
    assert [feed["text"].tolist() for feed in samples] == [[["a bird sings"]], [["sings a fish"]]]


def test_json_lines_have_labels_and_second_texts(folder: Path) -> None:
    rows = [{"q": "a bird", "r": "sings", "class": 1}, {"q": "a", "r": "bird", "class": 0}]
    (folder / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "d.toml").write_text(
        '[texts]\npath = "x.jsonl"\nfield = "q"\npair = "r"\nlabel = "class"\nlength = 2\n'
        'tokenizer = "tokenizer.json"\n'
    )
    samples = load_samples(folder / "d.toml", [IDS])
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]
    assert samples.feeds[1]["input_ids"].tolist() == [[2, 3]]


def test_files_of_subfolders_are_classes(folder: Path) -> None:
    for name in ("neg", "pos"):
        (folder / "texts" / name).mkdir(parents=True)
        (folder / "texts" / name / "a.txt").write_text("a bird\nsings\n")
    samples = load_samples(folder / "texts", [IDS])
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "inputs", "expected"),
    [
        ("", [IDS], "holds no text"),
        ("a", [IDS, InputSpec("x", "float32", (1, 2, 3))], "told by their names"),
        ("a", [InputSpec("mask", "int64", (1, 2))], "told by their names"),
    ],
)
def test_texts_that_do_not_fit_are_refused(
    folder: Path, content: str, inputs: list[InputSpec], expected: str
) -> None:
    (folder / "lines.txt").write_text(content)
    with pytest.raises(DataError, match=expected):
        load_samples(folder / "lines.txt", inputs)


def test_missing_tokenizer_is_asked_for(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"there is no tokenizer\.json beside"):
        load_samples(folder / "lines.txt", [IDS])


def test_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: is no file of the tokenizers library"):
        load_samples(folder / "lines.txt", [IDS])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 1: is not JSON"),
        ('{"sentence": "a"}', "has no text in 'text' .it has: sentence"),
        ('{"text": "a", "label": "pos"}', "expected the number of a class"),
        ("3", "has no text in 'text'"),
    ],
)
def test_wrong_json_line_is_named(folder: Path, line: str, expected: str) -> None:
    (folder / "x.jsonl").write_text(line)
    with pytest.raises(DataError, match=expected):
        load_samples(folder / "x.jsonl", [IDS])


def test_what_is_no_utf8_is_refused(folder: Path) -> None:
    (folder / "lines.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="line 1: is no UTF-8 text"):
        load_samples(folder / "lines.txt", [IDS])
