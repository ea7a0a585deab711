"""How numbers of things are said."""


def many(number: int, thing: str) -> str:
    """The number with its thing, in the plural where it has to be."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
