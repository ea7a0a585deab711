# What is run again and again. `uv run just` lists it; needs nothing but `uv sync`.

set positional-arguments

_list:
    @just --list --unsorted

# Format, lint, imports and types, as .ci/run asks for them.
check:
    uv run ruff format --check
    uv run ruff check
    uv run lint-imports
    uv run --extra spark pyright

# SQL files, parsed as Postgres reads them; a minute for all of them, so it is no part of `check`.
check-sql *files="recon_pipeline":
    uv run sqlfluff lint --processes 0 --disable-progress-bar --nocolor "$@"

# Fix what needs no person: format, and the lint rules that have a fix.
fix:
    uv run ruff check --fix
    uv run ruff format

# All tests, or some: `just test recon_pipeline_tests/test_readme.py -k links`.
test *arguments:
    uv run pytest "$@"

# Simulate six months in which counters drift, on an embedded Postgres, and repair them.
demo *arguments:
    uv run recon demo "$@"
