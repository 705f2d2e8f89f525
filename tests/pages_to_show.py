"""Pages to show, and what a browser sees of one, for tests of the page."""

from functools import cache
from html.parser import HTMLParser

import pytest
from verdicts_to_show import COMMAND, ENVIRONMENT, VERDICTS, an_audit

from emacheck.cli.judging import with_audit
from emacheck.report.html.page import audit_html, html

VOID = {"meta", "link", "br"}
INLINE = {"a", "b", "em", "small", "span", "svg"}


class Seen(HTMLParser):
    """Every element with its attributes, in order, and the text between them, as a browser takes it apart."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.pieces, self.open = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag not in INLINE:
            self.pieces.append(("", "\n"))

    def handle_data(self, data):
        self.pieces.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        """All that a person can read, blanks as one."""
        return " ".join("".join(text for inside, text in self.pieces if inside != "style").split())

    @property
    def style(self):
        """The stylesheet."""
        return "".join(text for inside, text in self.pieces if inside == "style")

    def all(self, tag):
        return [attributes for each, attributes in self.elements if each == tag]


def audited():
    audit = an_audit()
    return {"verdict": with_audit(VERDICTS["pass"], audit), "audit": audit}


@cache
def page(name):
    if name == "audited":
        given = audited()
        return html(given["verdict"], audit=given["audit"], command=COMMAND, environment=ENVIRONMENT)
    if name == "audit":
        return audit_html(an_audit(), command="emacheck audit --device sdaa")
    return html(VERDICTS[name], command=COMMAND, environment=ENVIRONMENT)


PAGES = pytest.mark.parametrize("name", [*VERDICTS, "audited", "audit"])
