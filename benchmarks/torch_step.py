"""Time a training step of the committed networks in PyTorch and in onnxpress, in turns.

    TORCH_PYTHON=/path/to/python python benchmarks/torch_step.py [ROUNDS]

PyTorch stands in an environment of its own, whose Python `TORCH_PYTHON` names; that runs this file
as `… torch_step.py --torch NAME`. Batch of 32, one thread, processor time, the least of all rounds:
forward, T²·KL against given logits, backward, Adam. The networks are those of
`models/train_fashion.py`, with statistics of BatchNormalization as they are.
"""

import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "fashion_mlp": "FashionMlp",
    "fashion_cnn": "FashionCnn",
    "fashion_mobile": "FashionMobile",
}
_RUNS = 8


def least(run: Callable[[], object]) -> float:
    """Milliseconds of processor time, the least of some."""
    found = []
    for _ in range(_RUNS):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return 1e3 * min(found)


def in_torch(name: str) -> float:
    """Of a step there."""
    import torch  # noqa: PLC0415 - of another environment
    from torch.nn import functional  # noqa: PLC0415

    # Only its training needs these; torch looks whether they are there.
    absent = {name: types.ModuleType(name) for name in ("onnx", "onnxruntime")}
    sys.modules.update(absent)
    sys.path.insert(0, str(ROOT / "models"))
    import train_fashion  # noqa: PLC0415

    for name_of_absent in absent:
        del sys.modules[name_of_absent]
    torch.set_num_threads(1)
    network = getattr(train_fashion, NETWORKS[name])().eval()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    image = torch.rand(32, 1, 28, 28)
    wanted = functional.log_softmax(torch.randn(32, 10) / 2, 1)

    def step() -> None:
        optimizer.zero_grad()
        own = functional.log_softmax(network(image) / 2, 1)
        loss = 4 * functional.kl_div(own, wanted, log_target=True, reduction="batchmean")
        loss.backward()
        optimizer.step()

    step()
    return least(step)


def in_onnxpress(name: str) -> float:
    """Of a step here, Adam's included."""
    from onnxpress import model_file  # noqa: PLC0415 - not in PyTorch's environment
    from onnxpress.distillation.adam import Adam  # noqa: PLC0415
    from onnxpress.distillation.losses import targets_of  # noqa: PLC0415
    from onnxpress.distillation.problem import derive  # noqa: PLC0415
    from onnxpress.judge.reading import read_outputs  # noqa: PLC0415
    from onnxpress.runtime import EXACT, Session  # noqa: PLC0415

    path = ROOT / "models" / f"{name}.onnx"
    model, session = model_file.load(path), Session(path, threads=1)
    feed = {"image": np.random.default_rng(0).random((32, 1, 28, 28), np.float32)}
    answers = session.run(feed)
    targets = targets_of(read_outputs(model, session, [answers]), [answers])
    copy, derived, _ = derive(model, targets, 2.0)
    parameters = {n: copy.parameters[n] for n in derived.gradients}
    values = {n: parameter.start.copy() for n, parameter in parameters.items()}
    whole = {**feed, **{t.input: answers[t.output] for t in targets}}
    training = Session(derived.model, threads=1, config=EXACT)
    optimizer = Adam(parameters, values)

    def step() -> None:
        found = training.run({**whole, **values})
        optimizer.step({n: found[output] for n, output in derived.gradients.items()}, 1e-6)

    step()
    return least(step)


def main() -> None:
    """Print a line a network."""
    if sys.argv[1:2] == ["--torch"]:
        print(in_torch(sys.argv[2]))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    for name in NETWORKS:
        ours, theirs = [], []
        for _ in range(rounds):
            command = [os.environ["TORCH_PYTHON"], __file__, "--torch", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            theirs.append(float(done.stdout))
            ours.append(in_onnxpress(name))
        print(
            f"| {name} | {min(ours):.1f} | {min(theirs):.1f} | {min(ours) / min(theirs):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
