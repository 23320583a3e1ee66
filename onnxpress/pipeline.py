"""optimize(): the whole way of a model.

file → simplify → statistics → candidates → plan → rewrite → validate → save → report
"""

import os
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from onnxpress.attempts import best_attempt, judged_attempt
from onnxpress.constraints import Constraints
from onnxpress.contract import Pass
from onnxpress.conversion import Conversion
from onnxpress.finishing import finished, with_requirements
from onnxpress.judge import Budget
from onnxpress.least_loss import constrained_attempt
from onnxpress.prepared import prepared
from onnxpress.progress import Progress, Tell, followed, unheard
from onnxpress.providers import NO_PROVIDERS, ProviderOptions
from onnxpress.recipe import Recipe
from onnxpress.request import DataArgument, Request
from onnxpress.result import Result
from onnxpress.runtime import Clock, compare_latency, numpy_threads
from onnxpress.search import Goal
from onnxpress.selection import Selector
from onnxpress.stages import NO_TIME

__all__ = ["optimize", "run"]


def optimize(
    model: str | os.PathLike[str] | ir.Model,
    *,
    calibration: DataArgument | None = None,
    evaluation: DataArgument | None = None,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    metric: str = "auto",
    task: str | None = None,
    outputs: Mapping[str, str] | None = None,
    confidence: float | None = None,
    goal: Goal = "balanced",
    target: str | Sequence[str] = "cpu",
    passes: Sequence[str | Pass] | None = None,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    fix_shapes: Sequence[str] = (),
    float16: str = "no",
    opset: int = 0,
    seed: int = 0,
    threads: int = 0,
    time_limit: float | None = None,
    providers: ProviderOptions = NO_PROVIDERS,
    clock: Clock = compare_latency,
    progress: Tell = unheard,
    keep: Sequence[str] = (),
    only: Sequence[str | Selector] = (),
    exclude: Sequence[str] = (),
    overridable: bool | None = None,
    stop: Callable[[], bool] = lambda: False,
    max_memory: int | str | None = None,
    max_size: int | str | None = None,
    min_speedup: float | None = None,
    max_latency: float | str | None = None,
) -> Result:
    """Make a model smaller and faster within a budget, and prove it.

    Args:
        model: a file or an onnx-ir model; neither is changed.
        calibration: samples the passes may look at; without, only what needs none is done.
        evaluation: held-out samples: a half, at most 256, for the search to choose by, the rest
            for the last judgement, which no choice has seen. Without, half of the calibration
            samples is held out, and without those random inputs show fidelity.
        max_drop: points of the task metric that may be lost.
        min_sqnr: dB that the worst output must keep.
        metric: see `Budget`, as `task`, `outputs` and `confidence`.
        task: what the outputs are for, where the model does not say it.
        outputs: the kind of an output, by name.
        confidence: that the loss stays within the budget, which the search then keeps away from.
        goal: `balanced` and `latency` never accept a slower model, `size` does.
        target: name of a target, or the path of its TOML file; of several, the model is good for
            all of them.
        passes: names or passes, instead of all; one that is named counts although it saves
            nothing.
        recipe: repeat these decisions; a pass without decisions is searched.
        fix_shapes: `NAME=1x3x224x224` for an input, `DIM=4` for a symbolic dimension; done first.
        float16: `storage` for weights in half that are float32 once the model is loaded,
            `keep-io` for half precision with the inputs and outputs as they are, `all` for half
            inputs and outputs too; `no` leaves float32. Takes the place of integers.
        opset: to convert to; 0: only where the target knows no newer one.
        seed: of the held-out split, of rows drawn for statistics, of random inputs.
        threads: of onnxruntime and numpy; 0: all cores.
        time_limit: seconds that all may take, about: the search takes the best it has when time
            is left for the last judgement alone. A search of several stages gives each a part.
        providers: where else the result is run before it is given back.
        clock: compares the latency of two models; in tests a table.
        progress: told how far the run is, in events (`onnxpress.Progress`), which say the stage,
            its steps, the estimated fraction of the whole, the time left, and the best model so
            far. What it raises, and Ctrl-C, ends the run as it is; nothing is written.
        keep: what no lossy pass touches: names of layers or nodes, patterns (`/head/*`), operator
            types (`Gather`).
        only: lossy passes touch nothing but these; `quantize:/head/*` for one pass.
        exclude: as `keep`, and `quantize:/head/*` keeps from one pass.
        overridable: whether callers may override weights that are inputs too; `None`: from IR
            version 4 on, as earlier ones demanded that all weights are inputs.
        stop: asked again and again from the beginning of the search on; once it says yes, the best
            model so far is judged and given back.
        max_memory: bytes, or with a unit as `4GB`; `None`: half of what is free. A model that
            takes more is never run as a whole: what changes no answer is done by its rules, a
            lossy pass that is named by the errors that it predicts. With samples it is run block
            by block, observed, and judged in the end; without, by the weights alone.
        max_size: of the file with its external data, in bytes or as `4MB`. With one of these three
            as little as possible is lost while all that are given are met, not as much gained as
            the budget allows. `max_drop` or `min_sqnr` are then a limit that is kept; without
            them more than the default budget is spent where nothing else meets them, and said.
        min_speedup: how many times as fast as the original, by the median of interleaved rounds.
        max_latency: of one run on this machine: milliseconds, or with a unit as `8ms`.

    Raises:
        OnnxpressError: the input cannot be used; its subclasses say which and what to do.
    """
    return run(
        Request(
            model,
            calibration,
            evaluation,
            Budget(max_drop, min_sqnr, metric, task, outputs or {}, confidence),
            goal,
            (target,) if isinstance(target, str) else tuple(target),
            passes,
            recipe,
            Conversion(tuple(fix_shapes), float16, opset),
            seed,
            threads,
            time_limit,
            providers,
            clock,
            followed(progress, time_limit),
            keep,
            only,
            exclude,
            overridable,
            stop,
            max_memory,
            Constraints.of(max_size, min_speedup, max_latency),
        )
    )


def run(request: Request) -> Result:
    """As `optimize`, for what stands in a request."""
    with numpy_threads(request.threads):
        found = _run(request)
        request.progress(Progress("done", fraction=1.0))
    return found


def _run(request: Request) -> Result:
    ready = prepared(request)
    if isinstance(ready, Result):
        return with_requirements(ready)
    if ready.late:
        best, validation = judged_attempt(
            ready.work, ready.judge, ready.again, lambda run, *_: best_attempt(run, 0, why=NO_TIME)
        )
    elif ready.work.recipe.constraints:
        best, validation = constrained_attempt(ready.work, ready.judge, ready.again)
    else:
        best, validation = judged_attempt(ready.work, ready.judge, ready.again)
    return with_requirements(finished(ready, best, validation))
