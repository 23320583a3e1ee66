"""TensorFlow Lite's full integer form of a model, and results of others beside it.

    python tensorflow_lite_worker.py MODEL.onnx CALIBRATION.npz FRESH.npz [RESULT.onnx ...]

As its documentation says: converted to a SavedModel (onnx2tf), then `Optimize.DEFAULT` with a
representative dataset and integer kernels alone. Prints JSON: by file, bytes, which answers are
right, dB, and how often as fast as the first one, one sample a run, one thread, processor time,
in interleaved rounds. Channels last, as TensorFlow Lite wants them, are given to it so.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import onnx2tf
import onnxruntime as ort
import tensorflow as tf

Run = Callable[[np.ndarray], np.ndarray]
SAMPLES, ROUNDS, TOGETHER = 256, 21, 40


def by_onnxruntime(path: str) -> Run:
    """One thread, as the project times everything."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def by_tensorflow_lite(model: bytes, channels_last: Callable[[np.ndarray], np.ndarray]) -> Run:
    """One thread; its XNNPACK kernels are on by default."""
    interpreter = tf.lite.Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    read, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(array: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(read["index"], channels_last(array))
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return run


def converted(path: str, name: str, calibration: np.ndarray) -> bytes:
    """The integer model as TensorFlow Lite writes it."""
    shape = ",".join(map(str, (1, *calibration.shape[1:])))
    with tempfile.TemporaryDirectory() as folder:
        # It writes what it simplified into the file that it is given.
        copy = shutil.copy(path, folder)
        onnx2tf.convert(
            input_onnx_file_path=copy,
            output_folder_path=folder,
            output_signaturedefs=True,
            overwrite_input_shape=[f"{name}:{shape}"],
            non_verbose=True,
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [channels_last(calibration[place : place + 1])]
            for place in range(min(SAMPLES, len(calibration)))
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return bytes(converter.convert())


def channels_last(array: np.ndarray) -> np.ndarray:
    """NHWC."""
    last = np.moveaxis(array, 1, -1) if array.ndim == 4 else array
    return np.ascontiguousarray(last, np.float32)


def main() -> None:
    """Convert, judge, time."""
    path, calibration, fresh, *others = sys.argv[1:]
    name = ort.InferenceSession(path).get_inputs()[0].name
    samples = np.load(fresh)
    model = converted(path, name, np.load(calibration)[name])
    runs = {Path(file).stem: by_onnxruntime(file) for file in (path, *others)}
    sizes = {Path(file).stem: Path(file).stat().st_size for file in (path, *others)}
    runs["TensorFlow Lite"] = by_tensorflow_lite(model, channels_last)
    sizes["TensorFlow Lite"] = len(model)
    batch = samples[name]
    answers = {
        key: np.concatenate([run(batch[place : place + 1]) for place in range(len(batch))])
        for key, run in runs.items()
    }
    first, taken = next(iter(runs)), {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            started = time.process_time()
            for place in range(TOGETHER):
                run(batch[place : place + 1])
            taken[key].append(time.process_time() - started)
    found: dict[str, Any] = {}
    for key, given in answers.items():
        error = float(np.sum((given - answers[first]) ** 2, dtype=np.float64))
        signal = float(np.sum(answers[first] ** 2, dtype=np.float64))
        ratios = np.array(taken[first]) / np.array(taken[key])
        found[key] = {
            "bytes": sizes[key],
            "right": (given.argmax(-1) == samples["__labels__"]).tolist(),
            "db": 10 * float(np.log10(signal / error)) if error else None,
            "speed": np.quantile(ratios, [0.25, 0.5, 0.75]).tolist(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
