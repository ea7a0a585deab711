"""The errors a person reads: what failed and on what, what was left as it was, and what to do next."""

NOTHING_CHANGED = "No counter was changed."
REPAIRS_STAY = "Repairs that were committed before stay, each with its row in recon.counter_repair."


class ReconError(Exception):
    """A failure that is told in three parts, so that nobody has to guess at three in the morning.

    Args:
        what: What failed, and on what. Never holds a secret.
        fix: What to do next, in the imperative.
        changed: What was and was not changed.
    """

    def __init__(self, what: str, *, fix: str, changed: str = NOTHING_CHANGED) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.changed = changed

    def __str__(self) -> str:
        """The three parts, a line each."""
        return f"{self.what}\n{self.changed}\nWhat to do: {self.fix}"

    @classmethod
    def told_as(cls, text: str) -> "ReconError | None":
        """The error that was recorded elsewhere as its text, or None if the text is not one."""
        before, separator, fix = text.rpartition("\nWhat to do: ")
        what, newline, changed = before.rpartition("\n")
        return cls(what, fix=fix, changed=changed) if separator and newline else None


class ConfigurationError(ReconError):
    """A variable, an option or a value that was given is wrong; its name is in the message."""


class DatabaseUnreachableError(ReconError):
    """The billing database did not answer, or the connection to it was lost."""


class OrchestratorUnreachableError(ReconError):
    """Dagster's storage did not answer, or the connection to it was lost."""


class UntrustworthyLogError(ReconError):
    """The event log cannot be read as a whole and true record, so nothing may be repaired from it."""


class SchemaVersionError(ReconError):
    """Schema recon is not of the version that this code works on.

    Args:
        what: As of every error.
        fix: As of every error.
        is_newer: A newer release prepared it; else an older one did, or none.
    """

    def __init__(self, what: str, *, fix: str, is_newer: bool = False) -> None:
        super().__init__(what, fix=fix)
        self.is_newer = is_newer


class PutOffError(ReconError):
    """Somebody holds a table that a run would have to read, for example a migration; the next run tries again."""


class StatementFailedError(ReconError):
    """Postgres refused a statement: a privilege, a missing object, a limit."""


class BlockedError(ReconError):
    """A guard refuses a repair that is larger than the budgets allow and that nobody has approved."""
