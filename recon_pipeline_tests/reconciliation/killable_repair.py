"""A process that compares, begins to repair in small chunks, says how far it is, and waits there to be killed.

Run as `python -m recon_pipeline_tests.reconciliation.killable_repair URL MOMENT`.
"""

import sys
from typing import Any

from recon_pipeline.store.counters import repair
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline_tests.reconciliation.product import new_run

BETWEEN_CHUNKS, INSIDE_A_CHUNK = "between chunks", "inside a chunk"


def main(url: str, moment: str) -> None:
    """Stop for ever at that moment, once two chunks are committed."""
    repair.CHUNK_KEYS = 4
    chunks: list[int] = []

    def wait_to_be_killed() -> None:
        print(chunks[-1], flush=True)
        sys.stdin.read()

    def note(done: int) -> None:
        chunks.append(done)
        if len(chunks) == 2 and moment == BETWEEN_CHUNKS:
            wait_to_be_killed()

    original = Repairer._lock_and_repair

    def inside(self: Repairer, *arguments: Any, **named: Any) -> set[int]:
        repaired = original(self, *arguments, **named)
        if len(chunks) == 2 and moment == INSIDE_A_CHUNK:
            wait_to_be_killed()
        return repaired

    Repairer._lock_and_repair = inside  # pyright: ignore[reportAttributeAccessIssue]
    run = new_run(url)
    run.compare()
    run.repair(on_progress=note)


if __name__ == "__main__":
    main(*sys.argv[1:])
