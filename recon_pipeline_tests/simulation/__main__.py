"""New seeds for as long as one likes, one seed again, or a schedule; and the load.

A failure is printed with its seed, the shortest schedule that it could be shrunk to, and the command that plays it.
"""

import itertools
import shlex
import sys
import time
from collections import Counter

import click

from recon_pipeline.faces.benchmark.scratch import scratch_database
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.reconciliation.conftest import install_increments, make_tables
from recon_pipeline_tests.simulation import simulation
from recon_pipeline_tests.simulation.load import run_load
from recon_pipeline_tests.simulation.plan import as_words, draw, from_words
from recon_pipeline_tests.simulation.shrink import shrink
from recon_pipeline_tests.simulation.simulation import Played, from_schedule, from_seed
from recon_pipeline_tests.support.postgres import PostgresServer, running_server


@click.group(invoke_without_command=True)
@click.option("--seeds", type=click.IntRange(min=1), help="How many seeds to play.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--hours", type=float, help="Play new seeds for so long.")
@click.option("--replay", type=int, help="Play this seed again.")
@click.option("--schedule", help="With --replay: what is kept of the plan, and who goes when, as a failure prints it.")
@click.option("--postgres", default="18", show_default=True, type=click.Choice(["15", "16", "18"]))
@click.pass_context
def main(
    context: click.Context,
    seeds: int | None,
    first: int,
    hours: float | None,
    replay: int | None,
    schedule: str | None,
    postgres: str,
) -> None:
    """Simulate the product among writers, saboteurs and faults."""
    if context.invoked_subcommand is not None:
        return
    if [seeds, hours, replay].count(None) != 2:
        raise click.UsageError("give one of --seeds, --hours and --replay")
    with running_server({"RECON_TEST_POSTGRES": postgres}) as server:
        simulation.configure(server)
        if replay is not None:
            failed = not _replay(server, replay, schedule)
        else:
            failed = not _play(server, first, seeds, hours, postgres)
    sys.exit(1 if failed else 0)


@main.command()
@click.option("--rounds", default=5, show_default=True, help="Of each kind.")
@click.option("--seconds", default=8, show_default=True, help="How long each takes.")
@click.option("--full", is_flag=True, help="Repair from the log itself.")
@click.option("--without-pause", is_flag=True, help="Begin a repair of everything as soon as the last has ended.")
def load(rounds: int, seconds: int, full: bool, without_pause: bool) -> None:
    """Measure what the application's recorder notices of the product, on a server with its usual settings."""
    with scratch_database(None) as url, connected(url, autocommit=True) as connection:
        make_tables(url)
        install_increments(url)
        billing = Billing(url, connection)
        done = run_load(
            billing, rounds=rounds, seconds=seconds, full=full, without_pause=without_pause, with_reader=True
        )
    kinds = {"alone": done.without, "beside the product": done.beside, "beside a reader": done.beside_reader}
    for name, measured in kinds.items():
        for one in measured:
            click.echo(
                f"{name:>18}: {one.calls_per_second:8,.0f} calls/s, p99 {one.p99_ms:6.1f} ms, "
                f"longest {one.longest_ms:6.0f} ms"
            )
    for name, measured in list(kinds.items())[1:]:
        throughput, p99 = (done.ratio(of, measured) for of in ("calls_per_second", "p99_ms"))
        click.echo(f"{name}: throughput x {throughput:.2f}, p99 x {p99:.2f}")
    click.echo(f"runs {done.runs}, {done.repairs:,} repairs, {done.wrong} wrong counters at the end")
    sys.exit(1 if done.wrong else 0)


def _play(server: PostgresServer, first: int, seeds: int | None, hours: float | None, postgres: str) -> bool:
    began = time.monotonic()
    done: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for seed in itertools.count(first):
        if seed == first + seeds if seeds is not None else time.monotonic() - began > (hours or 0) * 3_600:
            break
        plan = draw(seed)
        played = simulation.play(plan, from_seed(seed), server)
        done.update(seeds=1, statements=len(played.decided), runs=len(played.outcomes), repairs=played.repairs)
        done.update(seals=played.seals)
        done.update(f"runs that ended {outcome}" for outcome in played.outcomes)
        faults.update(played.disturbed)
        if played.violation is not None:
            done.update(failures=1)
            _print_failure(server, seed, played, postgres)
    for name, times in [*sorted(done.items()), *sorted(faults.items())]:
        click.echo(f"{times:>10,}  {name}")
    return done["failures"] == 0


def _print_failure(server: PostgresServer, seed: int, played: Played, postgres: str) -> None:
    click.echo(f"seed {seed}: {played.violation}")
    shrunk = shrink(
        draw(seed), played, lambda smaller, decided: simulation.play(smaller, from_schedule(decided), server)
    )
    words = as_words(shrunk.kept, shrunk.decided)
    click.echo(f"  shrunk to: {shrunk.violation}")
    click.echo(
        f"  python -m recon_pipeline_tests.simulation --postgres {postgres} --replay {seed} "
        f"--schedule {shlex.quote(words)}"
    )


def _replay(server: PostgresServer, seed: int, schedule: str | None) -> bool:
    plan, choose = draw(seed), from_seed(seed)
    if schedule is not None:
        kept, decided = from_words(schedule, plan)
        plan, choose = plan.only(kept), from_schedule(decided)
    click.echo(plan.world)
    for name, ops in plan.ops.items():
        for op in ops:
            keys = ", ".join(f"{key[0]} {key[1]:%Y-%m-%dT%H:%M}" for key in op.keys)
            fault = f", {op.fault} at statement {op.nth}" if op.fault else ""
            rolled_back = ", rolled back" if op.is_rolled_back else ""
            click.echo(f"  {name}: {op.kind} {keys} {op.quantity} {op.request_id}{fault}{rolled_back}")
    played = simulation.play(plan, choose, server, report=lambda actor, at: click.echo(f"{actor:>10}  {at}"))
    click.echo(played.violation or f"all true; runs ended {', '.join(played.outcomes)}; {played.repairs} repairs")
    return played.violation is None


if __name__ == "__main__":
    main()
