"""Why Dagster cannot load a part that `dagster.yaml` names, as an error that says what, where and how to fix it.

Invariant: the error shows names of entries, variables and modules, but no value of the file, since any may be a
password.
"""

import re
from collections.abc import Iterator

import dagster as dg
from dagster._config.errors import DagsterEvaluationErrorReason

from recon_pipeline.core.errors import ConfigurationError, driver_reason

_VARIABLE = re.compile(r'environment variable "(?P<name>[^"]+)" which is not set')
_CLASS = re.compile(r"Couldn't (?:import module|find class) .* class (?P<module>[\w.]+)\.(?P<name>\w+)$")
_LOGIN = re.compile(r"(?<=://)[^\s/]*@")


def unloadable(part: str, path: str, error: Exception) -> ConfigurationError:
    """The error that a person reads.

    Args:
        part: What of Dagster was to be loaded.
        path: Of its `dagster.yaml`.
        error: What Dagster raised, or a class that the file names.
    """
    why, fix = _cause(error)
    return ConfigurationError(
        f"{part} cannot be loaded, as {path} configures it: {why}.",
        fix=f"{fix or f'Correct it in {path}.'} Then run this again.",
    )


def _cause(error: Exception) -> tuple[str, str]:
    """Why, and what to do; that is empty where only the file can be corrected."""
    if isinstance(error, dg.DagsterInvalidConfigError):
        entry = error.errors[0]
        where = ".".join(entry.stack.levels) or "its first level"
        variable = _VARIABLE.search(entry.message)
        if variable is not None:
            name = variable["name"]
            return (
                f"the environment variable {name} is not set ({where})",
                f"Set {name} for this command, and for each process of Dagster.",
            )
        if entry.reason is DagsterEvaluationErrorReason.RUNTIME_TYPE_MISMATCH:
            return f"{where} is of the wrong type", ""
        if entry.reason is DagsterEvaluationErrorReason.FAILED_POST_PROCESSING:
            return f"the value of {where} cannot be used", ""
        return f"{where}: {entry.message.partition('. ')[0]}", ""
    said = driver_reason(str(error))
    named = _CLASS.search(said)
    where = f" ({named['module']}.{named['name']})" if named else ""
    missing = next((one.name for one in _chain(error) if isinstance(one, ModuleNotFoundError) and one.name), None)
    if missing is not None:
        return (
            f"there is no Python module {missing}{where}",
            f"Install the package with the module {missing} beside recon_pipeline, or name another class in the file.",
        )
    if named is not None:
        return f"{named['module']} has no class {named['name']}", ""
    return f"{type(error).__name__}: {_LOGIN.sub('***@', said)}".rstrip(". "), ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those during which it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
