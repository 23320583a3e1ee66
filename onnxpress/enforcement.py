"""Where a pass is called, its contract is enforced, as onnx-ir's pass base class does it.

`propose` may change nothing, `rewrite` only the clone it is given. While either runs, the arrays
of all weights are read-only, and afterwards the model it was not to touch is compared with what it
was, node by node and tensor by tensor (by identity, which costs a walk and no copy). A violation,
a proposal that means nothing, or an exception is a `PassError` that names pass, site and what
happened.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import onnx_ir as ir

from onnxpress.contract import (
    UNITS,
    Candidate,
    Context,
    Decision,
    Parameter,
    Pass,
    Proposal,
    Quota,
    Skip,
    TimingSubgraph,
)
from onnxpress.errors import OnnxpressError, OutputError, PassError, RecipeError, UsageError
from onnxpress.graph import Names, graphs_of, name_nodes_apart
from onnxpress.guard import difference, read_only, snapshot
from onnxpress.memory import collected_rarely
from onnxpress.statistics import Observations
from onnxpress.storage import round_to_storage

__all__ = [
    "Offer",
    "changed_by",
    "observed_by",
    "offered",
    "opset_needed_by",
    "prepared_by",
    "quota_of",
    "rewritten",
    "saving_of",
    "timed_by",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a pass says of a model.

    Attributes:
        proposals: sites that may be changed.
        left: sites that may not, and why.
    """

    proposals: tuple[Proposal, ...] = ()
    left: tuple[Skip, ...] = ()


def opset_needed_by(pass_: Pass) -> int:
    """The opset to which the model is raised where it can be.

    Raises:
        PassError: the pass fails.
    """
    return _signed_call(pass_, "needed_opset", lambda: pass_.needed_opset)


def prepared_by(pass_: Pass, model: ir.Model) -> ir.Model:
    """The model that the pass looks at, which is the given one where it needs no other.

    Raises:
        PassError: the pass fails or gives back no model.
    """
    if type(pass_).prepare is Pass.prepare:
        return model
    given = model.clone()
    found = _signed_call(pass_, "prepare", lambda: pass_.prepare(given))
    if not isinstance(found, ir.Model):
        raise PassError(pass_.name, f"prepare returned a {type(found).__name__}; expected a model")
    return model if found is given else found


def quota_of(pass_: Pass, context: Context) -> Quota | None:
    """What the settings of the pass ask for.

    Raises:
        PassError: the pass fails, or counts in what no candidate has.
    """
    if type(pass_).quota is Pass.quota:
        return None
    found = _guarded(pass_, context, "quota", lambda: pass_.quota(context))
    if found is not None and found.unit not in UNITS:
        units = ", ".join(UNITS)
        raise PassError(pass_.name, f"its quota counts {found.unit!r}; expected one of {units}")
    return found


def saving_of(pass_: Pass, context: Context, decisions: Sequence[Decision], unit: str) -> float:
    """What decisions of the pass save together.

    Raises:
        PassError: the pass fails.
    """
    return _signed_call(pass_, "saving", lambda: float(pass_.saving(context, decisions, unit)))


def changed_by(pass_: Pass, context: Context, decision: Decision) -> tuple[str, ...]:
    """Names of the layers that a decision of the pass would change; the site where it is one.

    Raises:
        PassError: the pass fails.
    """
    found = _signed_call(
        pass_, "changes", lambda: tuple(map(str, pass_.changes(context, decision)))
    )
    # Of what stands between layers the node itself is the site.
    return tuple(dict.fromkeys((*found, *decision.layers)))


def observed_by(pass_: Pass, context: Context) -> Observations:
    """What the pass wants to see of the model.

    Raises:
        PassError: it fails or changes the model.
    """
    if type(pass_).observes is Pass.observes:
        return Observations()
    return _guarded(pass_, context, "observes", lambda: pass_.observes(context))


def offered(pass_: Pass, context: Context) -> Offer:
    """What the pass proposes, its candidates signed with its name.

    Raises:
        PassError: it fails, changes the model, or proposes what means nothing.
    """

    def propose() -> list[Proposal | Skip]:
        return pass_.propose(context)

    try:
        found = _guarded(pass_, context, "propose", propose)
    except PassError as error:
        if error.site:
            raise
        raise PassError(pass_.name, error.what, _failing_layer(pass_, context)) from error
    _check(pass_, found)
    proposals = tuple(_signed(item, pass_.name) for item in found if isinstance(item, Proposal))
    return Offer(proposals, tuple(item for item in found if isinstance(item, Skip)))


def rewritten(pass_: Pass, context: Context, decisions: Sequence[Decision]) -> ir.Model:
    """A new model with the decisions carried out; `context.model` is not changed.

    Raises:
        PassError: the pass fails, touches the model it came from, or changes the interface.
    """
    model = context.model.clone()
    given = replace(context, model=model, layers=(), names=Names(model))

    def rewrite() -> None:
        pass_.rewrite(given, decisions)

    try:
        _guarded(pass_, context, "rewrite", rewrite, (UsageError, RecipeError))
    except PassError as error:
        raise PassError(
            pass_.name, error.what, error.site or _failing_site(pass_, context, decisions)
        ) from error
    if _interface(model) != _interface(context.model):
        raise PassError(pass_.name, "rewrite changed the inputs or outputs of the model")
    touched = _touched(context, model)
    if touched is not None:
        raise PassError(pass_.name, "rewrite changed the weight of a layer that is kept", touched)
    name_nodes_apart(model)
    if pass_.stage.loses and not context.draft:
        round_to_storage(model)
    return model


def _touched(context: Context, model: ir.Model) -> str | None:
    """A layer that is kept and whose weight is not as it was in the rewritten model."""
    if not context.kept:
        return None
    graphs = graphs_of(model.graph)
    left = {id(v.const_value) for graph in graphs for v in graph.initializers.values()}
    for layer in context.weights:
        if layer.name in context.kept and id(layer.weight.const_value) not in left:
            return layer.name
    return None


def timed_by(
    pass_: Pass, context: Context, proposal: Proposal, candidate: Candidate
) -> list[TimingSubgraph] | None:
    """What the pass wants to be timed for a candidate.

    Raises:
        PassError: it fails or changes the model.
    """
    return _guarded(
        pass_,
        context,
        "timing_subgraphs",
        lambda: pass_.timing_subgraphs(context, proposal, candidate),
    )


def _signed_call(
    pass_: Pass,
    method: str,
    call: Callable[[], T],
    users: tuple[type[OnnxpressError], ...] = (UsageError,),
) -> T:
    """What a method returns; whatever it raises is the pass's fault, but for errors of the user.

    Args:
        pass_: whose method it is.
        method: its name, for messages.
        call: calls it.
        users: errors that are the user's to mend: settings that do not fit the model, or a recipe
            that does not.
    """
    try:
        return call()
    except users:
        raise
    except OutputError:
        # A disk without room for temporary files is no fault of a pass.
        raise
    except Exception as error:
        # Whatever a stranger's code raises must not end the run.
        logger.debug("pass %s failed in %s", pass_.name, method, exc_info=True)
        what = f"{method} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise PassError(pass_.name, what) from error


def _guarded(
    pass_: Pass,
    context: Context,
    method: str,
    call: Callable[[], T],
    users: tuple[type[OnnxpressError], ...] = (UsageError,),
) -> T:
    """As `_signed_call`, with the model that it may only look at protected and compared."""
    with collected_rarely():
        before = snapshot(context.model)
    with read_only(context.model):
        found = _signed_call(pass_, method, call, users)
    with collected_rarely():
        changed = difference(before, snapshot(context.model))
    if changed is not None:
        what = f"{method} changed the model it may only look at: {changed[1]}"
        raise PassError(pass_.name, what, changed[0])
    return found


def _check(pass_: Pass, found: object) -> None:
    """Whether proposals mean something."""
    if not isinstance(found, list | tuple):
        raise PassError(pass_.name, f"propose returned a {type(found).__name__}; expected a list")
    seen: set[str] = set()
    for item in found:
        if not isinstance(item, Proposal | Skip):
            raise PassError(
                pass_.name,
                f"propose returned {item!r}; expected proposals and skips",
            )
        if item.site in seen:
            raise PassError(pass_.name, "propose names the site twice", item.site)
        seen.add(item.site)
        if isinstance(item, Skip):
            continue
        if not item.candidates:
            raise PassError(pass_.name, "a proposal without a candidate", item.site)
        for candidate in item.candidates:
            problem = _meaningless(candidate)
            if problem is not None:
                raise PassError(pass_.name, problem, item.site)


def _meaningless(candidate: Candidate) -> str | None:
    error = candidate.predicted_error
    if not (math.isfinite(error) and error >= 0):
        return f"a candidate's predicted error is {error}; expected a number of at least 0"
    for name, value in candidate.parameters.items():
        if not isinstance(value, Parameter):
            return (
                f"the parameter {name!r} of a candidate is a {type(value).__name__}; expected a "
                "bool, int, float or str"
            )
    return None


def _signed(proposal: Proposal, name: str) -> Proposal:
    candidates = tuple(replace(c, pass_name=name) for c in proposal.candidates)
    return replace(proposal, candidates=candidates)


def _failing_layer(pass_: Pass, context: Context) -> str:
    """Of a `propose` that fails, the first layer for which it fails alone."""
    for layer in context.layers:
        alone = replace(context, layers=(layer,))
        try:
            with read_only(context.model):
                pass_.propose(alone)
        except Exception:  # noqa: BLE001 - the failure is known, only its place is sought
            return layer.name
    return ""


def _failing_site(pass_: Pass, context: Context, decisions: Sequence[Decision]) -> str:
    """Of a `rewrite` that fails, the first site for which it fails alone."""
    if len(decisions) == 1:
        return decisions[0].site
    for decision in decisions:
        model = context.model.clone()
        alone = replace(context, model=model, layers=(), names=Names(model))
        try:
            with read_only(context.model):
                pass_.rewrite(alone, [decision])
        except Exception:  # noqa: BLE001 - as above
            return decision.site
    return ""


def _interface(model: ir.Model) -> list[tuple[str | None, object]]:
    return [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)]
