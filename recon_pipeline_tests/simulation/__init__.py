"""A deterministic, seeded simulation of the product among writers, saboteurs and faults, against a plain model.

    plan        what each actor does, drawn from a seed
    scheduler   one statement at a time, in an order that the seed decides; sessions really block and really deadlock
    worlds      the application's tables as they can be, and the product's role
    actors      the application, the saboteur and the clock, each a thread with a connection of its own
    migrations  rewrites, reloads, partitions and row level security, in transactions of several statements
    poison      rows that no arithmetic can hold
    customers   others who use something between every two statements of a run
    runs        the product's runs, what goes wrong in them, and what is held against each
    model       what must be true, without a database
    simulation  a plan and a schedule played on a real Postgres, checked at each commit
    scenes      what production does on an ordinary day, each as a short plan and schedule
    shrink      the shortest schedule that still fails

Run as `python -m recon_pipeline_tests.simulation`; see `docs/correctness.md`.
"""
