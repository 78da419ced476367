"""A figure's SVG as a part of a page: real text, in the colours of the reader's setting."""

import re
from html import escape

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


def inlined(svg: str, name: str, what: str) -> str:
    """The `<svg>` element of a file for a page that has others: no two ids are the same.

    name  begins every id
    what  is told to those who do not see it
    """
    body = _DROPPED.sub("", svg[svg.index("<svg") :])
    body = re.sub(r"(\.\d\d)\d+", r"\1", body)  # a hundredth of a point is nothing to see
    body = re.sub(r'\b(id="|href="#)|(url\(#)', rf"\g<0>{name}-", body)
    body = re.sub("|".join(THEME), lambda found: THEME[found[0]], body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(what)}" ', 1)
