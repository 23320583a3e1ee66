"""What a file is that was taken for an ONNX model, or for samples: told by its first bytes."""

from pathlib import Path

__all__ = ["what_it_is"]

_HEAD_BYTES = 512
_POINTER = b"version https://git-lfs"
_EXPORT = "export it to ONNX from its framework"
_SUFFIXES = {
    (".pt", ".pth", ".ckpt"): f"a PyTorch file: {_EXPORT} (torch.onnx.export)",
    (".safetensors",): f"weights without a graph: {_EXPORT}",
    (".tflite",): "a TensorFlow Lite model: convert it to ONNX first (tf2onnx)",
    (".h5", ".keras"): "a Keras model: convert it to ONNX first (tf2onnx)",
    (".pb",): "a TensorFlow graph: convert it to ONNX first (tf2onnx)",
    (".pdmodel", ".pdiparams"): "a Paddle model: convert it to ONNX first (paddle2onnx)",
    (".mlmodel", ".mlpackage"): "a Core ML model: give the ONNX model that it was made from",
    (".engine", ".plan", ".trt"): "a TensorRT engine: give the ONNX model that it was made from",
    (".npz",): "samples of numpy: give them with --calibration or --evaluation, after MODEL",
    (".npy",): "a lone array of numpy: samples are a .npz with an array named after each input",
    (".ort",): "a model in onnxruntime's own format: give the .onnx that it was made from",
}
_MAGIC = {
    b"PK\x03\x04": "a zip archive: unpack it and give a file or folder of it",
    b"\x1f\x8b": "compressed (gzip): unpack it and give a file or folder of it",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it and give a file or folder of it",
    b"Rar!": "a RAR archive: unpack it and give a file or folder of it",
    b"\x89HDF": "an HDF5 file, as Keras writes: convert it to ONNX first (tf2onnx)",
    b"\x80\x02": f"a pickle, as older PyTorch writes: {_EXPORT} (torch.onnx.export)",
    b"\xff\xd8\xff": "a picture",
    b"\x89PNG": "a picture",
    b"RIFF": "a recording or a picture",
    b"<!DOCTYPE": "a web page: the download gave its page in place of the file",
    b"<html": "a web page: the download gave its page in place of the file",
}


def what_it_is(file: Path) -> str:
    """What a file is, and what to do with it, in words; empty where that is not known.

    A suffix goes before the first bytes: newer PyTorch files are zip archives, too.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return ""
    if head.startswith(_POINTER):
        return "a pointer of Git LFS in place of the file: fetch the file itself (git lfs pull)"
    suffix = file.suffix.lower()
    for suffixes, text in _SUFFIXES.items():
        if suffix in suffixes:
            return text
    return next((text for magic, text in _MAGIC.items() if head.startswith(magic)), "")
