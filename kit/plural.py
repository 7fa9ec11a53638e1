"""A count with its noun."""


def plural(count: int, word: str, many: str | None = None) -> str:
    """``1 cell``, ``1,234 cells``; ``many`` where the plural is not the word with an s.

    >>> plural(1, "cell"), plural(1234, "cell"), plural(0, "series", "series")
    ('1 cell', '1,234 cells', '0 series')
    """
    return f"{count:,} {word if count == 1 else many or word + 's'}"
