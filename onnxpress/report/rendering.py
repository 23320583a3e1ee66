"""Templates of this package as pages that need nothing else, and are let do nothing else.

Style and script stand in the page; its content security policy allows that script by its digest
and no connection. Needs the extra `report` (jinja2), imported when used.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxpress.report.text import printable

__all__ = ["data_block", "rendered"]

_FOLDER = Path(__file__).parent


def rendered(
    template: str,
    *,
    styles: Sequence[str] = ("page.css",),
    scripts: Sequence[str] = ("page.js",),
    **content: object,
) -> str:
    """A page.

    Args:
        template: its file.
        styles: files of the style, in order.
        scripts: files of the script, in order.
        content: what the template asks for; strings are escaped.
    """
    import jinja2  # noqa: PLC0415 - an extra
    from markupsafe import Markup  # noqa: PLC0415 - jinja2's

    def escaped(value: object) -> object:
        return printable(value) if type(value) is str else value

    style, script = (
        "".join((_FOLDER / name).read_text("utf-8") for name in names)
        for names in (styles, scripts)
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template(template).render(
        # Files of this package, not what came from a model.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=digest,
        **content,
    )


def data_block(document: Mapping[str, Any]) -> object:
    """Plain data as the content of a script element that is not run; nothing in it ends that."""
    from markupsafe import Markup  # noqa: PLC0415 - jinja2's

    text = json.dumps(_printable(document), ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - nothing that HTML knows is left in it


def _printable(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value
