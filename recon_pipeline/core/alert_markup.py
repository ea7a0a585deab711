"""A message as each service reads it: its text escaped, its lines and paragraphs kept, its links to be clicked.

Invariant: the content of a message is shown as text. A customer id is never markup, and mentions nobody. A line that is
an address alone is a link; a line that begins with two spaces is a row of a sample. A message that is too long loses
samples first, and its links last.
"""

import re
from bisect import bisect_left
from collections.abc import Callable
from html import escape

Markup = Callable[[str], str]

_LINK = re.compile(r"https?://[^\s<>()\"|\\]+")
_ROW = "  "
_LABEL = "Open in Dagster"
# A colon too: else an address within a customer id would be a link.
_MARKDOWN = re.compile(r"([\\`*_~|\[\]()<>#:@&+-])")
_CUT = "... cut here; recon status and the UI show all of it."


def plain(text: str) -> str:
    """For a service without markup."""
    return text


def mail_html(text: str) -> str:
    """Paragraphs of HTML; a mail's text alternative is made from it, so a link shows its address."""
    paragraphs = (_lines(one, _html_link, _html_row, escape) for one in text.split("\n\n"))
    return "\n".join(f"<p>{'<br/>'.join(lines)}</p>" for lines in paragraphs)


def telegram_html(text: str) -> str:
    """Telegram knows few tags and no paragraphs; it looks for mentions everywhere but in code."""
    paragraphs = (_lines(one, _telegram_link, _html_row, _telegram_text) for one in text.split("\n\n"))
    return "\n \n".join("\n".join(lines) for lines in paragraphs)


def slack(text: str) -> str:
    """Slack reads commands only within `<` and `>`, which three escapes prevent; it has no others."""
    return "\n".join(_lines(text, _slack_link, _slack_text, _slack_text))


def markdown(text: str) -> str:
    """CommonMark, which Discord reads: a line stays a line."""
    return "\n".join(_lines(text, _markdown_link, _markdown_text, _markdown_text))


def teams(text: str) -> str:
    """Teams joins lines unless each is a paragraph."""
    return markdown(text).replace("\n\n", "\n").replace("\n", "\n\n")


def cut(text: str, markup: Markup, length: int) -> str:
    """The text with that markup, without as many whole lines as make it too long: see `_least_needed_first`.

    Each line makes the whole longer, so halving finds how many: a thousand lines are marked up eleven times.
    """
    whole = markup(text)
    lines = text.split("\n")
    if len(whole) <= length or len(lines) == 1:
        return whole
    order = _least_needed_first(lines)

    def without(count: int) -> str:
        left_out = set(order[:count])
        gap = min(left_out)
        kept = [_CUT if place == gap else line for place, line in enumerate(lines) if place not in left_out - {gap}]
        return markup("\n".join(kept))

    most = len(lines) - 1
    return without(1 + bisect_left(range(1, most), -length, key=lambda count: -len(without(count))))


def _least_needed_first(lines: list[str]) -> list[int]:
    """The places of lines in the order in which they are left out: each kind from the end, the first line never.

    Samples, which the check's page shows; what explains; then whatever else there is: what fails, and the links.
    """

    def need(place: int) -> int:
        line = lines[place]
        if line.startswith(_ROW):
            return 0
        is_first = place == 0 or not lines[place - 1]
        return 2 if is_first or not line or _LINK.fullmatch(line) else 1

    return sorted(range(len(lines) - 1, -1, -1), key=need)


def links(text: str) -> list[str]:
    """The lines that are an address alone, each once."""
    return list(dict.fromkeys(filter(_LINK.fullmatch, text.split("\n"))))


def _lines(text: str, link: Markup, row: Markup, other: Markup) -> list[str]:
    return [
        link(line) if _LINK.fullmatch(line) else row(line) if line.startswith(_ROW) else other(line)
        for line in text.split("\n")
    ]


def _html_link(url: str) -> str:
    return f'<a href="{escape(url)}">{escape(url)}</a>'


def _html_row(line: str) -> str:
    return f"<code>{escape(line.strip(), quote=False)}</code>"


def _telegram_link(url: str) -> str:
    return f'<a href="{escape(url)}">{_LABEL}</a>'


def _telegram_text(line: str) -> str:
    return f"<code>{escape(line, quote=False)}</code>" if "@" in line else escape(line, quote=False)


def _slack_link(url: str) -> str:
    return f"<{_slack_text(url)}|{_LABEL}>"


def _slack_text(line: str) -> str:
    return escape(line, quote=False)


def _markdown_link(url: str) -> str:
    return f"[{_LABEL}]({url})"


def _markdown_text(line: str) -> str:
    return _MARKDOWN.sub(r"\\\1", line)
