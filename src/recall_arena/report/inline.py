"""A figure's SVG as a part of a page: real text, in the colours of the reader's setting."""

import re
from html import escape

from recall_arena.figures import Drawing
from recall_arena.report.traced import traced

THEME = {
    "#000000": "currentColor",
    "#333333": "currentColor",
    "#ffffff": "var(--page)",
    "#ebebeb": "var(--line)",
    "#737373": "var(--soft)",
    "#595959": "var(--soft)",
}
"""What is drawn in black, white and grey, as the page's own colours."""

_DROPPED = re.compile(
    r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", re.DOTALL
)

_LONG = re.compile(r"(\.\d\d)\d+")
"""Numbers in tags: a hundredth of a point is nothing to see."""

_FONTS = re.compile(r"font-family: [^;\"]*; ?")
"""The same list of fonts in every text; the page names them once."""


def inlined(svg: str, name: str, drawing: Drawing, spacing: int = 1) -> str:
    """The `<svg>` element of a drawing's file for a page that has others: no id is there twice.

    name     begins every id
    spacing  how many points of width two points of a run share, along training (`traced`)
    """
    body = _FONTS.sub("", _DROPPED.sub("", svg[svg.index("<svg") :]))
    body = re.sub(r"<[^>]*>", lambda tag: _LONG.sub(r"\1", tag[0]), body)
    body = traced(body, drawing, spacing)
    body = re.sub(r'\b(id="|href="#)|(url\(#)', rf"\g<0>{name}-", body)
    body = re.sub("|".join(THEME), lambda found: THEME[found[0]], body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(drawing.caption)}" ', 1)
