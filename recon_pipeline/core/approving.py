"""The command by which a person approves what one run has shown, to be typed as it stands.

Invariant: it names the run, its months and its customers, so that it approves what was shown and nothing else. A run
over other months or customers than the named one is blocked, whatever has happened since.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from recon_pipeline.core.periods import BillingMonth, months_between

SEE_ALL = "recon reconcile --all --dry-run"
"""What a person types before the first run of a metered usage; it ends with the command that approves what it shows."""

_ID_SHOWN = 8
"""So many characters name a run, as the UI and `recon status` show it."""


@dataclass(frozen=True)
class ShownRun:
    """A run that has shown what it would repair.

    Attributes:
        run_id: In Dagster and in schema recon.
        first: Its first billing month.
        last: Its last one, included.
        customers: The only ones that it compared, or none for all.
        known: The first and the last month that there are, of which `--all` is short for all.
        job: What the job is called in the UI.
        reconciler: What the resource is called there that takes an approval.
    """

    run_id: str
    first: BillingMonth
    last: BillingMonth
    customers: Sequence[str]
    known: tuple[BillingMonth, BillingMonth]
    job: str = "reconcile"
    reconciler: str = "reconciler"

    @property
    def how_to_approve(self) -> str:
        """What a person types, or clicks and pastes, after a colon; each is a line of its own, to be copied."""
        months = self.first.key if self.first == self.last else f"[{self.first.key}...{self.last.key}]"
        return (
            f"\n{self.approval()}\n"
            f"Or in the UI: job {self.job}, Materialize all, partitions {months}, Config, Add config, "
            "with your reason:\n"
            f"{self.config()}"
        )

    def config(self, reason: str = "your reason") -> str:
        """The same for the config of a run in the UI: one line of YAML, in which every text has quotes.

        Args:
            reason: Why.
        """
        approval: dict[str, str | list[str]] = {"approve_reason": reason, "approve_run": self.run_id[:_ID_SHOWN]}
        if self.customers:
            approval["customers"] = list(self.customers)
        # A JSON text is one of YAML. A run's id may look like a number, such as 12345678 or 1e123456.
        values = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in approval.items())
        return f"resources: {{{self.reconciler}: {{config: {{{values}}}}}}}"

    def approval(self, reason: str = "your reason") -> str:
        """The command that approves it, for a shell.

        Args:
            reason: Why; a text without quotes, as it stands between two.
        """
        months = months_between(self.first, self.last)
        options = ["--all"] if (self.first, self.last) == self.known else []
        if not options:
            options = [part for month in months for part in ("--period", month.key)]
        for customer in self.customers:
            options += ["--customer", customer]
        options += ["--approve-run", self.run_id[:_ID_SHOWN]]
        return f'recon reconcile {shlex.join(options)} --approve "{reason}"'
