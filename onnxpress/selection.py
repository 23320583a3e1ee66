"""What a user keeps from the lossy passes: `--keep`, `--only` and `--exclude`, pins in a recipe.

A selector is the name of a layer or a node, an operator type (`Conv`), or a pattern of such names
(`/head/*`, as `fnmatch` has it); in front of it may stand a pass, `quantize:/head/*`. What is a
name or a type is no pattern, so that names may have brackets.

[layers."/head/*"]
keep = true                 # no lossy pass touches them
[layers.Gather]
exclude = ["quantize"]      # nor does this one
[layers."/body/*"]
only = true                 # or ["prune"]: lossy passes, or this one, touch nothing but these
[layers.""]
only = ["quantize"]         # this one touches nothing but what other entries allow
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxpress.errors import RecipeError, UsageError, nearest
from onnxpress.selectable import Selectable, matching

__all__ = ["NOTHING_SELECTED", "Selection", "Selector"]

_ENTRIES = ("keep", "exclude", "only")


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """Layers or operators.

    Attributes:
        pattern: a name, an operator type, or a pattern of names; empty, in `only`: nothing.
        pass_name: the pass it speaks of; empty: all that lose something.
    """

    pattern: str
    pass_name: str = ""

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self._of_pass}{self.pattern}"

    @property
    def _of_pass(self) -> str:
        return f"{self.pass_name}:" if self.pass_name else ""

    @classmethod
    def parse(cls, text: str, passes: Collection[str], part: str = "") -> "Selector":
        """`PATTERN` or `PASS:PATTERN`; tensors have colons in their names too.

        Args:
            text: what it is read from.
            passes: names of passes that may stand before a colon.
            part: what the user wrote before that, `PART:`, for messages.

        Raises:
            UsageError: nothing stands there.
        """
        before, colon, after = text.partition(":")
        found = cls(after, before) if colon and before in passes else cls(text)
        if not found.pattern.strip():
            raise UsageError(
                f"the selector {part + text!r} is empty; expected the name of a layer, a "
                "pattern or an operator type [U001]"
            )
        return found

    def matches(self, sites: Iterable[Selectable]) -> frozenset[str]:
        """Names of the sites it stands for."""
        return matching(self.pattern, sites) if self.pattern else frozenset()

    def hint(
        self,
        sites: Sequence[Selectable],
        passes: Collection[str],
        parts: Collection[str],
        part: str,
    ) -> str:
        """What it may have been meant to be where it matches nothing; empty: nothing is near.

        Args:
            sites: all there are.
            passes: names of passes that may stand before a colon.
            parts: names of models that may stand before these.
            part: what the user wrote before it, `PART:`.
        """
        words = sorted({name for site in sites for name in (*site.all_names, *site.operators)})
        # `quantise:/head` is read as a name, since names may have colons.
        before, colon, rest = self.pattern.partition(":")
        if colon and before in passes:
            inner, second, name = rest.partition(":")
            own = f"{inner}:{before}:{name}" if second and inner in parts else f"{before}:{rest}"
            return f"; for {before} alone it is --exclude {part}{own}"
        if colon and before in parts and self.pass_name:
            return f"; the part stands in front: {before}:{self._of_pass}{rest}"
        found = nearest(self.pattern, words, before=part + self._of_pass)
        return found or (nearest(before, sorted({*passes, *parts})) if colon else "")


@dataclass(frozen=True, slots=True)
class Selection:
    """What lossy passes must leave alone.

    Attributes:
        kept: what is left as it is.
        only: where there is any for a pass, it touches nothing but these.
    """

    kept: tuple[Selector, ...] = ()
    only: tuple[Selector, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kept or self.only)

    @classmethod
    def parse(
        cls,
        keep: Sequence[str],
        only: Sequence[str | Selector],
        exclude: Sequence[str],
        passes: Collection[str],
    ) -> "Selection":
        """From what the user wrote.

        Args:
            keep: from all passes; what stands before a colon is no pass.
            only: the others are kept; where a text cannot say it, as of nothing, a `Selector`.
            exclude: from the pass before the colon, or from all.
            passes: names of passes that may stand there.

        Raises:
            UsageError: a text is empty.
        """
        kept = [Selector.parse(text, ()) for text in keep]
        kept += [Selector.parse(text, passes) for text in exclude]
        allowed = {
            item if isinstance(item, Selector) else Selector.parse(item, passes) for item in only
        }
        return cls(tuple(sorted(set(kept))), tuple(sorted(allowed)))

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """All that have to stand for something."""
        return (*self.kept, *(selector for selector in self.only if selector.pattern))

    def joined(self, other: "Selection") -> "Selection":
        """What both say."""
        return Selection(
            tuple(sorted({*self.kept, *other.kept})), tuple(sorted({*self.only, *other.only}))
        )

    def to_table(self) -> dict[str, dict[str, Any]]:
        """As `[layers]` of a recipe has it."""
        table: dict[str, dict[str, Any]] = {}
        for key, every, selectors in (("exclude", "keep", self.kept), ("only", "only", self.only)):
            for selector in sorted(selectors):
                entry = table.setdefault(selector.pattern, {})
                if not selector.pass_name:
                    entry[every] = True
                elif entry.get(key) is not True:
                    entry.setdefault(key, []).append(selector.pass_name)
        return table

    @classmethod
    def from_table(
        cls, table: Mapping[str, Mapping[str, Any]], passes: Collection[str], source: str
    ) -> "Selection":
        """What `to_table` made, or a person wrote.

        Args:
            table: by selector.
            passes: names of passes that may be excluded.
            source: what messages call the recipe.

        Raises:
            RecipeError: an entry is unknown, of another type, or names no pass.
        """
        kept: set[Selector] = set()
        only: set[Selector] = set()
        for pattern, entry in table.items():
            where = f'{source}: [layers."{pattern}"]'
            unknown = sorted(set(entry) - set(_ENTRIES))
            if unknown:
                raise RecipeError(
                    f"{where}: unknown entries {', '.join(unknown)}; expected some of "
                    f"{', '.join(_ENTRIES)} [R004]"
                )
            for key, value in entry.items():
                names = _passes(value, key, passes, where)
                (only if key == "only" else kept).update(Selector(pattern, n) for n in names)
        return cls(tuple(sorted(kept)), tuple(sorted(only)))

    def require_matches(
        self,
        sites: Sequence[Selectable],
        passes: Collection[str] = (),
        where: str = "the model",
        parts: Collection[str] = (),
        part: str = "",
    ) -> None:
        """Refuse what stands for nothing.

        Args:
            sites: all there are.
            passes: names of passes that may stand before a colon.
            where: what messages call the model.
            parts: names of models that may stand before these.
            part: what the user wrote before the selectors, `PART:`.

        Raises:
            UsageError: a selector matches no layer and no operator of the model.
        """
        for selector in self.selectors:
            if selector.matches(sites):
                continue
            hint = selector.hint(sites, passes, parts, part)
            raise UsageError(
                f"{part + selector.text!r} matches no layer, node or operator type of {where}{hint}"
                " (onnxpress inspect lists them) [U001]"
            )


NOTHING_SELECTED = Selection()


def _passes(value: object, key: str, passes: Collection[str], where: str) -> list[str]:
    """The passes that an entry speaks of; an empty name for all."""
    if isinstance(value, bool) and key != "exclude":
        return [""] if value else []
    if not isinstance(value, list) or key == "keep":
        expected = {"keep": "true", "exclude": 'names of passes, ["quantize"]'}
        raise RecipeError(
            f"{where}: {key} is {value!r}; expected "
            f"{expected.get(key, 'true or names of passes')} [R004]"
        )
    for name in value:
        if name not in passes:
            raise RecipeError(
                f"{where}: {key} names the pass {name!r}{nearest(str(name), sorted(passes))} "
                f"(those that lose something: {', '.join(sorted(passes))}) [R004]"
            )
    return [str(name) for name in value]
