"""One of a few words, as click has it, with the nearest one for a word that is none of them."""

from typing import Any

import click

from onnxpress.errors import nearest

__all__ = ["Choice"]


class Choice(click.Choice):  # type: ignore[type-arg] # click 8.1 has none
    """As click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word; a wrong one is told with what may have been meant."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            found = nearest(str(value), [str(choice) for choice in self.choices])
            text = error.message.rstrip(".") + (found or ".")
            raise click.BadParameter(text, ctx=ctx, param=param) from error
