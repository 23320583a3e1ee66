"""Descriptions and folders are read, and what is wrong in them is told with the right name."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from decoders import write_decoder, write_encoder, write_head, write_merged, write_seq2seq

from onnxpress.errors import ModelError, RecipeError, UsageError
from onnxpress.pipelines import Part, Pipeline, read_folder, wired
from onnxpress.runtime import Session


def fitted(pipeline: Pipeline) -> Pipeline:
    sessions = {part.name: Session(part.model, threads=1) for part in pipeline.parts}
    return wired(pipeline, sessions).pipeline


def described(folder: Path, text: str) -> Path:
    write_encoder(folder / "encoder_model.onnx")
    write_decoder(folder / "decoder.onnx", encoder=True)
    path = folder / "pipeline.toml"
    path.write_text(text)
    return path


GOOD = """
[[part]]
name = "encoder"
model = "encoder_model.onnx"
[[part]]
name = "decoder"
model = "decoder.onnx"
[part.inputs]
encoder_hidden_states = "encoder.last_hidden_state"
[part.loop]
tokens = "input_ids"
start = 0
end = [1]
[part.loop.cache]
"past_key_values.*" = "present.*"
"""


def test_a_star_stands_for_the_same_text_in_both_names(tmp_path: Path) -> None:
    loop = fitted(read_folder(described(tmp_path, GOOD))).parts[1].loop
    assert loop is not None
    assert loop.cache == {
        "past_key_values.0.key": "present.0.key",
        "past_key_values.0.value": "present.0.value",
    }


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    first = fitted(read_folder(described(tmp_path, GOOD)))
    (tmp_path / "pipeline.toml").write_text(first.to_toml())
    assert read_folder(tmp_path) == first


def test_a_start_token_of_0_is_written(tmp_path: Path) -> None:
    assert "start = 0" in read_folder(described(tmp_path, GOOD)).to_toml()


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("model = ", "modle = ", RecipeError, "unknown entry 'modle'; did you mean 'model'?"),
        ("decoder.onnx", "decodr.onnx", ModelError, "part decoder is missing.*'decoder.onnx'"),
        ("last_hidden_state", "last_hidden", ModelError, "did you mean 'last_hidden_state'"),
        ("encoder.last", "encodr.last", ModelError, "called 'encodr'; did you mean 'encoder'"),
        ("encoder_hidden_states", "hidden", ModelError, "part decoder: there is no input 'hidden'"),
        ("present.*", "presents.*", ModelError, "did you mean 'present.0.key'"),
        ("past_key_values.*", "past.*", ModelError, "cache 'past.*' is no input"),
        ("past_key_values.*", "*.key", ModelError, "'past_key_values.0.value' looks like a cache"),
        ('"input_ids"', '"inputs_ids"', ModelError, "did you mean 'input_ids'"),
        ("[[part]]", "[[parts]]", RecipeError, "unknown entry 'parts'"),
        ("end = [1]", "longest = 0", RecipeError, "longest is 0; expected 1 or more"),
        ("end = [1]", "end = [1.5]", RecipeError, "expected numbers of tokens"),
        ("[part.loop]", "[part.loop]\nfirst = 'enc'", ModelError, "first is 'enc'.*'encoder'"),
        ("[part.loop]", "[part.loop]\nfirst = 'decoder'", ModelError, "first is the part itself"),
        ("[part.loop]", "[part.loop]\nonce = ['pats.*']", ModelError, "once 'pats.*' is no input"),
        ("[part.loop]", "[part.loop]\nlogits = 'present.0.key'", ModelError, "logits expects"),
        ("end = [1]", "padded = true", ModelError, "padded is of the mask of prompts.*no `mask`"),
        ("end = [1]", "padded = 1", RecipeError, "padded"),
        ('name = "decoder"', 'name = "encoder"', RecipeError, "a part 'encoder' already"),
    ],
)
def test_what_is_wrong_is_told_with_the_nearest_right_name(
    tmp_path: Path, old: str, new: str, error: type[Exception], said: str
) -> None:
    text = GOOD.replace('"present.*"', '"present.key"') if new == "*.key" else GOOD
    if new == "*.key":
        new, text = "past_key_values.0.key", GOOD.replace('"present.*"', '"present.0.key"')
    path = described(tmp_path, text.replace(old, new))
    with pytest.raises(error) as raised:
        fitted(read_folder(path))
    assert re.search(said, str(raised.value))


@pytest.mark.parametrize("first", ["", "first = 'decoder'"])
def test_two_loops_are_refused(tmp_path: Path, first: str) -> None:
    write_decoder(tmp_path / "plain.onnx")
    loop = f"[part.loop]\ntokens = 'input_ids'\n{first}\n[part.loop.cache]\n'past_*' = 'present*'"
    text = f"{GOOD}\n[[part]]\nname = 'other'\nmodel = 'plain.onnx'\n{loop}\n"
    with pytest.raises(ModelError, match=r"decoder and other both have a loop.*N003"):
        fitted(read_folder(described(tmp_path, text)))


def test_of_a_loop_only_the_logits_are_given_to_others(tmp_path: Path) -> None:
    write_head(tmp_path / "head.onnx")
    taken = "[part.inputs]\nlast_hidden_state = 'decoder.present.0.key'"
    text = f"{GOOD}\n[[part]]\nname = 'head'\nmodel = 'head.onnx'\n{taken}\n"
    with pytest.raises(ModelError, match=r"gives no 'present.0.key' to others.*it gives logits"):
        fitted(read_folder(described(tmp_path, text)))


def test_every_step_has_to_give_the_cache(tmp_path: Path) -> None:
    folder = write_seq2seq(tmp_path)
    # Without `once` the decoder of later steps would have to give the encoder's keys too.
    pipeline = read_folder(folder)
    part = pipeline.parts[-1]
    assert part.loop is not None
    changed = replace(part, loop=replace(part.loop, once=()))
    with pytest.raises(ModelError, match=r"there is no output 'present.0.encoder.key'"):
        fitted(replace(pipeline, parts=(*pipeline.parts[:-1], changed)))


def test_a_misfit_names_both_ends(tmp_path: Path) -> None:
    path = described(tmp_path, GOOD)
    write_encoder(tmp_path / "encoder_model.onnx", width=48)
    with pytest.raises(ModelError, match=r"expects encoder_hidden_states: float32\[.*32\].*48\]"):
        fitted(read_folder(path))


def test_files_of_one_name_are_told_apart_by_their_parts(tmp_path: Path) -> None:
    path = described(tmp_path, GOOD)
    (tmp_path / "other").mkdir()
    write_decoder(tmp_path / "other" / "encoder_model.onnx", encoder=True)
    path.write_text(GOOD.replace("decoder.onnx", "other/encoder_model.onnx"))
    files = read_folder(path).files
    assert files == {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}


def test_no_two_parts_are_written_as_one_file(tmp_path: Path) -> None:
    models = {"a": "x/model.onnx", "b": "y/model.onnx", "c": "z/a.onnx", "d": "z/B.onnx"}
    parts = tuple(Part(name, tmp_path / model) for name, model in models.items())
    files = Pipeline(parts, "four").files
    assert files == {"a": "a_2.onnx", "b": "b_2.onnx", "c": "a.onnx", "d": "B.onnx"}


@pytest.mark.parametrize("name", ["", "../out", "in/out", "in\\out", ".."])
def test_a_part_is_never_written_into_another_folder(tmp_path: Path, name: str) -> None:
    path = described(tmp_path, GOOD.replace('"encoder"', f"'{name}'"))
    with pytest.raises(UsageError, match=r"a name that a file can have.*N001"):
        read_folder(path)


def test_optimums_folder_is_recognized(tmp_path: Path) -> None:
    # A text names a folder as well.
    found = fitted(read_folder(str(write_seq2seq(tmp_path))))
    assert [part.name for part in found.parts] == ["encoder", "decoder", "decoder_with_past"]
    loop = found.parts[-1].loop
    assert loop is not None
    assert loop.once == ("past_key_values.0.encoder.key", "past_key_values.0.encoder.value")
    assert (loop.first, loop.start, loop.end, loop.longest) == ("decoder", 0, (1,), 64)
    assert found.side_files == (tmp_path / "config.json",)


def test_optimums_merged_decoder_has_a_flag(tmp_path: Path) -> None:
    write_merged(tmp_path / "decoder_model_merged.onnx")
    loop = fitted(read_folder(tmp_path)).parts[0].loop
    assert loop is not None
    assert loop.flag == "use_cache_branch"


def test_an_encoder_without_a_decoder_is_a_missing_part(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder_model.onnx")
    with pytest.raises(ModelError, match="decoder is missing"):
        read_folder(tmp_path)


def config_of(folder: Path, **said: object) -> Pipeline:
    write_seq2seq(folder)
    (folder / "config.json").write_text(json.dumps(said))
    return read_folder(folder)


def test_null_hides_nothing_that_the_other_file_says(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": null}')
    loop = config_of(tmp_path, decoder_start_token_id=5).parts[-1].loop
    assert loop is not None
    assert loop.start == 5


def test_a_decoder_may_begin_with_the_token_of_any_text(tmp_path: Path) -> None:
    loop = config_of(tmp_path, decoder_start_token_id=None, bos_token_id=7).parts[-1].loop
    assert loop is not None
    assert loop.start == 7


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, "says no token that the decoder begins with"),
        ({"bos_token_id": "<s>"}, "bos_token_id is '<s>'; expected a whole number"),
        ({"bos_token_id": 0, "eos_token_id": [1, "a"]}, "eos_token_id is .*; expected a whole"),
        ({"bos_token_id": 0, "n_positions": "long"}, "n_positions is 'long'; expected a whole"),
    ],
)
def test_what_a_configuration_cannot_mean_is_told(
    tmp_path: Path, said: dict[str, object], problem: str
) -> None:
    with pytest.raises(UsageError, match=rf"config.json.*{problem}.*N001"):
        config_of(tmp_path, **said)


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_a_single_model_that_generates_nothing_is_no_decoder(
    tmp_path: Path, architecture: str
) -> None:
    write_decoder(tmp_path / "model.onnx", with_past=False)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    if architecture == "BertForMaskedLM":
        with pytest.raises(UsageError, match=r"is a single model.*give .*model.onnx itself.*N001"):
            read_folder(tmp_path)
    else:
        assert read_folder(tmp_path).parts[0].loop is not None


def test_files_beside_a_description_belong_to_it(tmp_path: Path) -> None:
    path = described(tmp_path, GOOD)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert read_folder(path).side_files == (tmp_path / "tokenizer.json",)


def genai(folder: Path, **model: object) -> Path:
    write_decoder(folder / "model.onnx")
    names = {
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    decoder = {
        "filename": "model.onnx",
        "inputs": {"input_ids": "input_ids", **names},
        "outputs": {"logits": "logits", "present_key_names": "present.%d.key"},
    }
    config = {"model": {"decoder": decoder, "eos_token_id": 1, "context_length": 40, **model}}
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def test_genais_folder_is_recognized(tmp_path: Path) -> None:
    loop = fitted(read_folder(genai(tmp_path))).parts[0].loop
    assert loop is not None
    assert loop.cache["past_key_values.0.value"] == "present.0.value"
    assert (loop.end, loop.longest) == ((1,), 40)


def test_what_is_not_understood_of_genai_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an encoder beside the decoder"):
        read_folder(genai(tmp_path, encoder={"filename": "encoder.onnx"}))


@pytest.mark.parametrize(
    "said", [{"context_length": "40"}, {"context_length": 0}, {"eos_token_id": "end"}]
)
def test_a_wrong_type_in_genai_is_told(tmp_path: Path, said: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(said))} is .*; expected a whole.*N001"):
        read_folder(genai(tmp_path, **said))


def test_a_folder_of_no_layout_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"it holds notes.txt.*N001"):
        read_folder(tmp_path)
