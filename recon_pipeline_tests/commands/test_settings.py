"""Whatever stands in the environment gives settings or an error that names the variable, and no password."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.serve.access import read_secrets
from recon_pipeline.settings import read_alerting, read_settings
from recon_pipeline.store.postgres.database import BillingDatabase

PASSWORD = "hunter2secret"
VARIABLES = (
    "RECON_SCOPE",
    "RECON_START_PERIOD",
    "RECON_SETTLE_SECONDS",
    "RECON_EVENT_IDENTITY",
    "RECON_QUOTAS",
    "RECON_PAID_STATUSES",
    "RECON_MAX_REPAIRS",
    "RECON_MAX_REPAIR_SHARE",
    "RECON_MAX_ORPHAN_SHARE",
    "RECON_MAX_OVER_QUOTA_TRANSITIONS",
    "DATABASE_URL",
)
MAY_HOLD_A_SECRET = (
    "RECON_ALERT_URLS",
    "RECON_UI_URL",
    "CRON_SECRET",
    "CRON_SECRET_PREVIOUS",
    "RECON_READ_SECRET",
)
ANY_TEXT = st.text(st.characters())  # surrogates too: that is how Python shows bytes that are not UTF-8
LIMITS = st.dictionaries(
    st.sampled_from(["free", "paid", "other"]), st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
)
NEARLY_RIGHT = (
    st.from_regex(r"[0-9]{1,5}-[0-9]{1,3}", fullmatch=True)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.lists(st.tuples(ANY_TEXT, ANY_TEXT).map(":".join)).map(",".join)
    | st.dictionaries(ANY_TEXT, LIMITS).map(lambda limits: repr(limits).replace("'", '"'))
)


@given(variable=st.sampled_from(VARIABLES), text=ANY_TEXT | NEARLY_RIGHT)
@example(variable="RECON_QUOTAS", text="[" * 100_000)
@example(variable="RECON_START_PERIOD", text="0001-01")
@example(variable="RECON_START_PERIOD", text="9998-12")
def test_arbitrary_text_gives_settings_or_an_error_that_names_its_variable(variable: str, text: str) -> None:
    try:
        read_settings({variable: text})
    except ConfigurationError as error:
        assert variable in error.what  # noqa: PT017 - settings are as good an answer
        assert error.fix  # noqa: PT017


@given(
    variable=st.sampled_from(MAY_HOLD_A_SECRET),
    text=ANY_TEXT | st.from_regex(r"(error=|warn=|x=)?[a-z]*:?/?/?[a-z@:]*", fullmatch=True),
)
@example(variable="RECON_UI_URL", text="https://me:hunter2@host")
def test_arbitrary_text_where_a_secret_may_be_gives_a_value_or_an_error_that_names_its_variable_and_not_it(
    variable: str, text: str
) -> None:
    for read in (read_alerting, read_secrets):
        try:
            read({variable: text + PASSWORD})
        except ConfigurationError as error:
            assert variable in error.what  # noqa: PT017 - a value is as good an answer
            assert error.fix  # noqa: PT017
            assert PASSWORD not in str(error)  # noqa: PT017


@given(before=ANY_TEXT, after=ANY_TEXT, at_host=ANY_TEXT)
@example(before="", after="", at_host="[::1")
@example(before="", after="", at_host=":")
@example(before="", after="%zz", at_host="host:99999/db?sslmode=bogus")
@example(before="a@b:", after="", at_host="host/db?password=hunter2secret")
def test_no_password_of_a_url_is_ever_shown(before: str, after: str, at_host: str) -> None:
    try:
        settings = read_settings({"DATABASE_URL": f"postgresql://app:{before}{PASSWORD}{after}@{at_host}"})
        shown = repr(settings) + BillingDatabase(settings.database_url or "").name
    except ConfigurationError as error:
        shown = str(error)
        assert "DATABASE_URL" in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    ("variable", "bounds"),
    [
        ("RECON_MAX_REPAIRS", "a whole number from 0 to 9,223,372,036,854,775,807"),
        ("RECON_SETTLE_SECONDS", "a whole number from 0 to 86,400"),
        ("RECON_MAX_REPAIR_SHARE", "a number from 0 to 1"),
    ],
)
def test_a_number_out_of_its_bounds_is_answered_with_these_in_digits(variable: str, bounds: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_settings({variable: "-1"})
    assert refused.value.what == f"{variable} is '-1', which is not {bounds}."
