"""The result of checking one requirement: met, met with a note, or not met."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a requirement is met; only FAIL prevents a run."""

    PASS = "pass"  # noqa: S105 - a verdict
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One requirement and its result.

    Attributes:
        requirement: What was checked, in a few words.
        verdict: How it is met.
        detail: What was found.
        fix: What to do; empty if nothing.
    """

    requirement: str
    verdict: Verdict
    detail: str
    fix: str = ""


def passed(requirement: str, detail: str) -> Finding:
    """The requirement is met."""
    return Finding(requirement, Verdict.PASS, detail)


def noted(requirement: str, detail: str, fix: str = "") -> Finding:
    """The requirement is met in another way, or at a cost."""
    return Finding(requirement, Verdict.NOTE, detail, fix)


def failed(requirement: str, detail: str, fix: str) -> Finding:
    """The requirement is not met; a run would fail or be refused."""
    return Finding(requirement, Verdict.FAIL, detail, fix)
