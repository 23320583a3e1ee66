"""Folders of pictures: what a pixel becomes, which class a subfolder is, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxpress.data import load_samples
from onnxpress.data.pictures import Pictures, geometry_of, tensor_of
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import Array, InputSpec

RGB = InputSpec("image", "float32", ("batch", 3, 4, 6))
COLOR = (255, 51, 0)


def picture(file: Path, size: tuple[int, int] = (6, 4), color: tuple[int, ...] = COLOR) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(file)


def fed(how: Pictures, spec: InputSpec, image: Image.Image) -> Array:
    geometry = geometry_of(spec)
    assert geometry is not None
    return tensor_of(image, how, spec, geometry)


def test_pixel_is_scaled_and_channels_stand_where_the_model_wants_them(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (feed,) = load_samples(tmp_path, [RGB]).feeds
    assert feed["image"].shape == (1, 3, 4, 6)
    assert feed["image"].dtype == np.float32
    assert feed["image"][0, :, 2, 3].tolist() == pytest.approx([1, 0.2, 0], abs=1e-6)
    last = InputSpec("image", "float32", ("batch", 4, 6, 3))
    (feed,) = load_samples(tmp_path, [last]).feeds
    assert feed["image"][0, 2, 3].tolist() == pytest.approx([1, 0.2, 0], abs=1e-6)


def test_integers_are_fed_as_they_are(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (feed,) = load_samples(tmp_path, [InputSpec("image", "uint8", (1, 4, 6, 3))]).feeds
    assert feed["image"][0, 0, 0].tolist() == list(COLOR)


def test_grey_model_is_fed_grey(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", color=(128, 128, 128))
    (feed,) = load_samples(tmp_path, [InputSpec("x", "float32", (1, 1, 4, 6))]).feeds
    assert feed["x"].reshape(-1).tolist() == pytest.approx([128 / 255] * 24)


def test_mean_deviation_and_order_follow_the_description(tmp_path: Path) -> None:
    picture(tmp_path / "photos/a.png")
    described = tmp_path / "photos.toml"
    described.write_text(
        '[images]\npath = "photos"\ncolors = "bgr"\nscale = 1\nmean = [1, 2, 3]\n'
        "deviation = [2.0, 4.0, 6.0]\n"
    )
    samples = load_samples(described, [RGB])
    values = samples.feeds[0]["image"][0, :, 0, 0]
    assert values.tolist() == pytest.approx([(0 - 1) / 2, (51 - 2) / 4, (255 - 3) / 6], abs=1e-5)
    assert samples.source == str(described)
    assert samples.notes == ()


def test_padding_keeps_the_ratio_and_lies_where_it_is_asked_for() -> None:
    image = Image.new("RGB", (20, 10), (255, 255, 255))
    spec = InputSpec("x", "float32", (1, 3, 8, 8))
    middle = fed(Pictures(fit="pad", fill=0), spec, image)[0, 0]
    start = fed(Pictures(fit="pad", place="start", fill=255), spec, image)[0, 0]
    assert middle.mean(axis=1).round().tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert start.min() == 1


def test_crop_takes_the_centre_of_the_resized() -> None:
    # Columns count up, so that what is cut out can be told.
    pixels = np.repeat(np.arange(16, dtype=np.uint8)[np.newaxis] * 10, 8, axis=0)
    image = Image.fromarray(np.stack([pixels] * 3, axis=2))
    spec = InputSpec("x", "uint8", (1, 3, 4, 4))
    how = Pictures(resize=8, interpolation="nearest")
    assert fed(how, spec, image)[0, 0, 0].tolist() == [60, 70, 80, 90]


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 0x8000, np.uint16)).save(tmp_path / "a.png")
    (feed,) = load_samples(tmp_path, [RGB]).feeds
    assert feed["image"].reshape(-1).tolist() == pytest.approx([128 / 255] * 72)


def test_pixels_of_an_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 6), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: its pixels are 32-bit numbers"):
        load_samples(tmp_path, [RGB])


def test_picture_smaller_than_what_is_cut_out_of_it_is_refused() -> None:
    spec = InputSpec("x", "float32", (1, 3, 8, 8))
    with pytest.raises(DataError, match="resize is 4, less than the 8 by 8"):
        fed(Pictures(resize=4), spec, Image.new("RGB", (20, 10)))


def test_turned_photograph_is_put_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 6), (0, 0, 0))
    for row in range(6):
        image.putpixel((0, row), (255, 255, 255))
    tags = Image.Exif()
    tags[0x0112] = 6  # turned to the right by the viewer
    image.save(tmp_path / "a.png", exif=tags)
    (feed,) = load_samples(tmp_path, [RGB]).feeds
    assert feed["image"][0, 0, 0].tolist() == [1] * 6


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["crop", "pad", "stretch"]),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_any_picture_becomes_the_size_asked_for(
    across: int, down: int, fit: str, height: int, width: int
) -> None:
    how = Pictures(fit=fit, size=(height, width))  # type: ignore[arg-type]
    spec = InputSpec("x", "float32", ("n", 3, "h", "w"))
    assert fed(how, spec, Image.new("RGB", (across, down))).shape == (1, 3, height, width)


def test_size_of_each_picture_is_rounded_where_that_is_asked_for() -> None:
    spec = InputSpec("x", "float32", ("n", 3, "h", "w"))
    image = Image.new("RGB", (70, 40))
    assert fed(Pictures(multiple=32), spec, image).shape == (1, 3, 32, 64)


def test_open_size_is_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"size = \[224, 224\]"):
        load_samples(tmp_path, [InputSpec("x", "float32", ("n", 3, "h", "w"))])


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        (["cat", "ant", "bee"], [], [0, 1, 2]),
        (["10", "2", "33"], [], [10, 2, 33]),
        (["cat", "ant"], ["bee", "cat", "ant"], [2, 1]),
    ],
)
def test_subfolders_are_classes(
    tmp_path: Path, names: list[str], classes: list[str], expected: list[int]
) -> None:
    for name in names:
        picture(tmp_path / "photos" / name / "a.png")
    (tmp_path / "photos.toml").write_text(f'[images]\npath = "photos"\nclasses = {classes}\n')
    samples = load_samples(tmp_path / "photos.toml", [RGB])
    assert samples.labels is not None
    assert samples.labels.tolist() == expected
    assert any("subfolders are taken for classes" in note for note in samples.notes)


def test_subfolders_are_no_classes_where_that_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "photos" / name / "a.png")
    (tmp_path / "d.toml").write_text('[images]\npath = "photos"\nlabels = false\n')
    assert load_samples(tmp_path / "d.toml", [RGB]).labels is None


def test_labels_go_with_batches_and_the_rest_is_said(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / f"{number % 2}" / f"{number}.png")
    samples = load_samples(tmp_path, [InputSpec("x", "float32", (2, 3, 4, 6))])
    assert [feed["x"].shape[0] for feed in samples.feeds] == [2, 2]
    assert samples.labels is not None
    assert samples.labels.tolist() == [[0, 0], [0, 1]]
    assert any("the last 1 are left out" in note for note in samples.notes)


def test_more_files_than_asked_for_are_thinned_out_evenly(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "p" / f"{number}.png", color=(number * 20, 0, 0))
    (tmp_path / "d.toml").write_text('[images]\npath = "p"\nmost = 5\nscale = 1\n')
    samples = load_samples(tmp_path / "d.toml", [RGB])
    assert [int(feed["image"][0, 0, 0, 0]) for feed in samples] == [0, 40, 80, 120, 160]
    assert any("5 of 10 files" in note for note in samples.notes)


def test_assumption_is_said_and_kept_by_a_split(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png")
    kept, held = load_samples(tmp_path, [RGB]).hold_out(0.5, 0)
    for part in (kept, held):
        assert any("nothing says how pictures are prepared" in note for note in part.notes)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {
                "size": {"shortest_edge": 6},
                "crop_size": {"height": 4, "width": 6},
                "do_center_crop": True,
                "do_normalize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "resample": 3,
            },
            Pictures(
                size=(4, 6),
                resize=6,
                mean=(0.5,) * 3,
                deviation=(0.5,) * 3,
                interpolation="bicubic",
            ),
        ),
        ({"size": {"height": 4, "width": 6}}, Pictures(size=(4, 6), fit="stretch")),
        ({"size": 4, "do_rescale": False}, Pictures(size=(4, 4), fit="stretch", scale=1.0)),
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
            Pictures(size=(224, 224), resize=256),
        ),
    ],
)
def test_processor_of_transformers_is_understood(
    tmp_path: Path, said: dict[str, object], expected: Pictures
) -> None:
    from onnxpress.data.images import said_by_processor  # noqa: PLC0415

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert said_by_processor(tmp_path / "preprocessor_config.json") == (expected, [])


def test_processor_beside_the_pictures_is_used_and_named(tmp_path: Path) -> None:
    picture(tmp_path / "photos/a.png")
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 4, "width": 6}, "do_rescale": False, "do_sharpen": True})
    )
    samples = load_samples(tmp_path / "photos", [RGB])
    assert samples.feeds[0]["image"][0, :, 0, 0].tolist() == list(COLOR)
    assert any("not carried out: do_sharpen" in note for note in samples.notes)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"size": {"height": "x", "width": 1}}'])
def test_broken_processor_is_refused_by_name(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(DataError, match=r"preprocessor_config\.json"):
        load_samples(tmp_path, [RGB])


def test_broken_picture_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: cannot be read as a picture"):
        load_samples(tmp_path, [RGB])


@pytest.mark.parametrize(
    "inputs",
    [
        [InputSpec("ids", "int64", ("batch", "length"))],
        [RGB, InputSpec("scale", "float32", (1, 2))],
        [InputSpec("x", "float32", (1, 2, 4, 6))],
    ],
)
def test_model_that_takes_no_picture_alone_is_refused(
    tmp_path: Path, inputs: list[InputSpec]
) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"pictures feed one input"):
        load_samples(tmp_path, inputs)


def test_constants_feed_the_other_inputs(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "d.toml").write_text(
        '[images]\npath = "a.png"\n[constants]\nscale = [[1.0, 2.0]]\nflag = 3\n'
    )
    inputs = [RGB, InputSpec("scale", "float32", (1, 2)), InputSpec("flag", "int64", ("n", 2))]
    (feed,) = load_samples(tmp_path / "d.toml", inputs).feeds
    assert feed["scale"].tolist() == [[1, 2]]
    assert feed["flag"].tolist() == [[3, 3]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "describes nothing"),
        ("[image]\npath = 'p'\n", "did you mean 'images'"),
        ("[images]\n", "has no path"),
        ("[images]\npath = 'none'\n", "there is no such file or folder"),
        ("[images]\npath = 'p'\nsiz = [1, 1]\n", "did you mean 'size'"),
        ("[images]\npath = 'p'\nsize = [1]\n", "expected .height, width."),
        ("[images]\npath = 'p'\nsize = [9, 9]\n", "the model wants"),
        ("[images]\npath = 'p'\nmean = [1, 2]\n", "mean has 2 values"),
        ("[images]\npath = 'p'\nresize = 2\nsize = [4, 6]\n", "less than the size"),
        ("[images]\npath = 'p'\n[texts]\npath = 'p'\n", "expected one of the tables"),
        ("[images]\npath = 'p'\n[constants]\nimag = 1\n", "did you mean 'image'"),
        ("[images]\npath = 'p'\n[constants]\nimage = 'x'\n", "cannot be image"),
        ("[images]\npath = 'p'\nclasses = ['b']\n", "is none of the classes"),
        ("[images", "cannot be read as a description"),
    ],
)
def test_wrong_description_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    picture(tmp_path / "p/a/a.png")
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(DataError, match=expected):
        load_samples(tmp_path / "d.toml", [RGB])


def test_setting_of_a_wrong_type_is_refused() -> None:
    with pytest.raises(UsageError, match="fill is 300"):
        Pictures(fill=300)


DETECTOR = {"author": "Ultralytics", "task": "detect", "imgsz": "[320, 320]", "stride": "32"}
OPEN = ("batch", 3, "height", "width")


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (31, 17)])
def test_detector_of_ultralytics_is_fed_its_letterbox(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    picture(tmp_path / "a.png", size)
    samples = load_samples(tmp_path, [InputSpec("images", "float32", OPEN, DETECTOR)])
    (feed,) = samples.feeds
    assert feed["images"].shape == (1, 3, 320, 320)
    # As its LetterBox computes where the picture lies.
    ratio = min(320 / size[0], 320 / size[1])
    across, down = round(size[0] * ratio), round(size[1] * ratio)
    left, top = round((320 - across) / 2 - 0.1), round((320 - down) / 2 - 0.1)
    expected = np.full((320, 320), np.float32(114 / 255))
    expected[top : top + down, left : left + across] = 1.0
    np.testing.assert_allclose(feed["images"][0, 0], expected, atol=1e-6)
    assert any("as the model's metadata say: RGB, pad, 0 to 1" in note for note in samples.notes)
    assert samples.preparation["images"]["fit"] == "pad"


def test_fixed_sizes_and_tasks_say_more_than_the_size_in_the_metadata(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (64, 32))
    fixed = InputSpec("images", "float32", (1, 3, 16, 24), DETECTOR)
    (feed,) = load_samples(tmp_path, [fixed]).feeds
    assert feed["images"].shape == (1, 3, 16, 24)
    classifier = InputSpec("images", "float32", OPEN, {**DETECTOR, "task": "classify"})
    (feed,) = load_samples(tmp_path, [classifier]).feeds
    assert feed["images"].shape == (1, 3, 320, 320)
    np.testing.assert_allclose(feed["images"][0, 0], 1.0, atol=1e-6)


@pytest.mark.parametrize("imgsz", ["", "large", "[0, 2]", "[1]", '{"a": 1}', "[1.5, 2]", "null"])
def test_metadata_that_say_nothing_are_as_none(tmp_path: Path, imgsz: str) -> None:
    picture(tmp_path / "a.png")
    spec = InputSpec("image", "float32", ("batch", 3, 4, 6), {**DETECTOR, "imgsz": imgsz})
    samples = load_samples(tmp_path, [spec])
    assert any("nothing says how pictures are prepared" in note for note in samples.notes)


def test_what_lies_beside_the_pictures_goes_before_metadata(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (64, 32))
    said = {"size": {"height": 8, "width": 8}, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    (feed,) = load_samples(tmp_path, [InputSpec("images", "float32", OPEN, DETECTOR)]).feeds
    assert feed["images"].shape == (1, 3, 8, 8)
