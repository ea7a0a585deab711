"""The answer of one check of a requirement: met, met in a way worth knowing, or in the way of a run."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a requirement is met; only FAIL stands in the way of a run."""

    PASS = "pass"  # noqa: S105 - a verdict
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One requirement and its answer.

    Attributes:
        requirement: What was looked at, a few words.
        verdict: How it is met.
        detail: What was found.
        fix: What to do; empty where nothing is to be done.
    """

    requirement: str
    verdict: Verdict
    detail: str
    fix: str = ""


def passed(requirement: str, detail: str) -> Finding:
    """The requirement is met."""
    return Finding(requirement, Verdict.PASS, detail)


def noted(requirement: str, detail: str, fix: str = "") -> Finding:
    """The requirement is met in another way, or will cost something."""
    return Finding(requirement, Verdict.NOTE, detail, fix)


def failed(requirement: str, detail: str, fix: str) -> Finding:
    """The requirement is not met; a run would fail or be refused."""
    return Finding(requirement, Verdict.FAIL, detail, fix)
