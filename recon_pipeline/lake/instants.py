"""Times that whole numbers count from 1970 on, to the microsecond, by functions of an engine's own.

Invariant: no number passes through a floating point one, as it does in the / of engines.
"""

from typing import Any


def since_1970(number: Any, per_second: int, *, instant: str, divide: str) -> Any:
    """The times as a column.

    Args:
        number: A column of whole numbers (int64).
        per_second: How many of them make a second: 1, or 10 to the power of 3, 6 or 9; what is less than a microsecond
            is cut off.
        instant: The engine's function that gives the time of microseconds since 1970.
        divide: The one that divides whole numbers.
    """
    import ibis  # noqa: PLC0415 - an extra

    @ibis.udf.scalar.builtin(name=divide)
    def divided(number: int, by: int) -> int: ...  # pyright: ignore[reportReturnType]

    @ibis.udf.scalar.builtin(name=instant, signature=(("int64",), "timestamp('UTC', 6)"))
    def time_of(number):  # pyright: ignore
        ...

    if per_second > 10**6:
        by = per_second // 10**6
        return time_of(divided(number - ((number % by) + by) % by, by))
    return time_of(number * (10**6 // per_second))
