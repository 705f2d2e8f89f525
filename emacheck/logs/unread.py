"""What stands in a log where a number should be."""

from dataclasses import dataclass, field

_SHOWN = 3
_LONGEST = 20


@dataclass(slots=True)
class Unread:
    """Values of one metric that are no number.

    Attributes:
        line: The line of the first.
        count: How many there are.
        texts: The first few of them that differ, and how often each occurs.

    Example:
        >>> unread = Unread(7)
        >>> unread.add("null", 7)
        >>> unread.add("2.1%", 9)
        >>> str(unread)
        "2 left out ('null', '2.1%'), the first on line 7"
    """

    line: int
    count: int = 0
    texts: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, line: int) -> None:
        """Count one more."""
        self.count += 1
        self.line = min(self.line, line)
        text = ascii(text[:_LONGEST])
        if text in self.texts or len(self.texts) < _SHOWN:
            self.texts[text] = self.texts.get(text, 0) + 1

    @property
    def found(self) -> str:
        """The texts, in words."""
        return ", ".join([*self.texts, *(["..."] if sum(self.texts.values()) < self.count else [])])

    def __str__(self) -> str:
        return f"{self.count} left out ({self.found}), the first on line {self.line}"
