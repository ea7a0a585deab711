"""A deterministic, seeded simulation of the product among writers, saboteurs and faults, against a plain model.

    plan        what each actor does, drawn from a seed
    scheduler   one statement at a time, in an order that the seed decides; sessions really block and really deadlock
    actors      the application, the saboteur, the clock and the reconcilers, each a thread with a connection of its own
    model       what must be true, without a database
    simulation  a plan and a schedule played on a real Postgres, checked at each commit
    shrink      the shortest schedule that still fails

Run as `python -m recon_pipeline_tests.simulation`; see `docs/correctness.md`.
"""
