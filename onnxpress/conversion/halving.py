"""Half precision of a model, as storage or as arithmetic, and what its user should know of it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.conversion.half import computes_in_half, prepared, refusal
from onnxpress.conversion.half_range import LARGEST, SMALLEST, Magnitudes, too_wide
from onnxpress.conversion.half_storage import Stored, chosen_storage
from onnxpress.conversion.mixing import AIM_DB, Mixed, mixed
from onnxpress.conversion.precision import Slot, Unit, flow_of
from onnxpress.enumeration import few
from onnxpress.errors import ModelError
from onnxpress.model_file import weight_bytes
from onnxpress.runtime import Feed
from onnxpress.targets import Target

__all__ = ["halved", "samples_to_choose_by", "stored"]

_LEAST, _LARGE_MODEL, _MOST = 8, 16, 64
"""Samples."""
_LARGE_BYTES = 32_000_000
"""Of weights."""
_SAMPLES_BYTES = 32_000_000
"""Of the inputs of all samples."""
_NAMED = 3
"""Tensors or operators that a message names."""


def samples_to_choose_by(model: ir.Model, feeds: Sequence[Feed]) -> Sequence[Feed]:
    """As many samples as choose well in bounded time: fewer of large ones, and for large models."""
    one = sum(np.asarray(array).nbytes for array in feeds[0].values()) if feeds else 0
    most = _LARGE_MODEL if weight_bytes(model) >= _LARGE_BYTES else _MOST
    return feeds[: max(_LEAST, min(most, _SAMPLES_BYTES // max(one, 1)))]


def stored(model: ir.Model, target: Target, feeds: Sequence[Feed]) -> tuple[ir.Model, list[str]]:
    """The weights in half behind Casts, and which are not plain half and why.

    Args:
        model: not changed.
        target: whose file form is written.
        feeds: samples by which weights are found that lose too much in half.
    """
    try:
        made, found, costly = chosen_storage(model, feeds)
    except ModelError as error:
        return model, [f"half storage: not done: {error} [H002]"]
    if not any(weight.form for weight in found):
        return model, ["half storage: not done: no float32 weight would be smaller [H002]"]
    notes = _storage_notes(found, costly)
    if target.file_forms[0] == "ort":
        notes.append(
            "half storage: the .ort form is as large as before, as onnxruntime does the Casts when "
            "it writes it; ship the .onnx [H005]"
        )
    return made, notes


def _first(names: Sequence[str]) -> str:
    """A few of them, and how many more there are."""
    return few(names, _NAMED)


def _storage_notes(found: Sequence[Stored], costly: Mapping[str, float]) -> list[str]:
    said = []
    if costly:
        named = _first(
            [f"{name} ({costly[name]:.0f} dB)" for name in sorted(costly, key=costly.__getitem__)]
        )
        said.append(
            f"half storage: {len(costly)} of {len(found) + len(costly)} weights stay in float32 "
            f"because of what they lose, in dB if they alone are half: {named} [H006]"
        )
    others = [weight for weight in found if weight.reason]
    for form in dict.fromkeys(weight.form for weight in others):
        own = [weight for weight in others if weight.form == form]
        named = _first([f"{weight.name} ({weight.reason})" for weight in own])
        what = {"": "stay in float32"}.get(form, f"are stored as {form}")
        said.append(f"half storage: {len(own)} of {len(found)} weights {what}: {named} [H006]")
    return said


def halved(
    model: ir.Model,
    target: Target,
    feeds: Sequence[Feed],
    observe: Callable[[ir.Model], Magnitudes],
) -> tuple[ir.Model, list[str]]:
    """The model in half precision but for what does not fit or loses too much; and notes.

    Args:
        model: not changed.
        target: whose half types are meant.
        feeds: samples to choose by.
        observe: how far the tensors of a model reach on samples.
    """
    notes = []
    if target.float16 == "storage":
        notes.append(
            f"{target.name} stores half types but computes in float32: not faster; `--float16 "
            "storage` is as small and rounds nothing but weights [H005]"
        )
    refused = refusal(model)
    if refused is not None:
        return model, [*notes, f"half precision: not done: {refused} [H002]"]
    try:
        named = prepared(model)
    except ModelError as error:
        return model, [*notes, f"half precision: not done: {error} [H002]"]
    flow = flow_of(named)
    found = observe(named)
    wide = {**dict.fromkeys(flow.exact, ""), **too_wide(named, flow, found)}
    operators = sum(not isinstance(unit, Slot) for unit in flow.units)
    if not flow.units:
        return model, [*notes, "half precision: not done: it has no float32 tensors [H002]"]
    if len(wide) == len(flow.units):
        return model, [
            *notes,
            "half precision: not done: no part of it fits in half [H002]",
            *_range_notes(operators, wide, found),
        ]
    try:
        _, _, costly = chosen_storage(named, feeds)
        result = mixed(named, flow, wide, costly, feeds)
    except ModelError as error:
        return model, [*notes, f"half precision: not done: {error} [H002]"]
    said = [*_range_notes(operators, wide, found), *_loss_notes(result)]
    if not computes_in_half(result.model):
        why = "all that would gain by it has to be computed in float32"
        return model, [*notes, f"half precision: not done: {why} [H002]", *said]
    return result.model, [*notes, *said]


def _range_notes(total: int, wide: Mapping[Unit, str], found: Magnitudes) -> list[str]:
    """What stays in float32 by its range and why, and what the ranges are not known from."""
    said = []
    reasons = list(dict.fromkeys(reason for reason in wide.values() if reason))
    if reasons:
        count = sum(bool(reason) and not isinstance(unit, Slot) for unit, reason in wide.items())
        said.append(
            f"half precision: {count} of {total} operators stay in float32, as half "
            f"ends at {LARGEST:g} and is whole down to {SMALLEST:.1e}: "
            f"{_first(reasons)} [H001]"
        )
    if found.made_up and found.largest:
        said.append(
            "half precision: whether activations stay within half's range was seen on "
            f"{found.source}, not on real data: give --calibration [H003]"
        )
    return said


def _loss_notes(result: Mixed) -> list[str]:
    """What stays in float32 because of its error, or because that costs fewer Casts."""
    said = []
    lossy = {u: db for u, db in result.lossy.items() if not isinstance(u, Slot)}
    if lossy:
        named = _first(
            [f"{unit.name} ({lossy[unit]:.0f} dB)" for unit in sorted(lossy, key=lossy.__getitem__)]
        )
        said.append(
            f"half precision: {len(lossy)} operators stay in float32 because of what they lose, "
            f"in dB if all else is float32: {named} [H006]"
        )
    if result.between:
        said.append(
            f"half precision: {result.between} operators between these stay in float32, which "
            "saves Casts [H006]"
        )
    if result.emulated_db < AIM_DB:
        said.append(
            f"half precision: half arithmetic keeps {result.emulated_db:.1f} dB on the samples "
            f"that chose, {AIM_DB:g} were aimed at [H004]"
        )
    return said
