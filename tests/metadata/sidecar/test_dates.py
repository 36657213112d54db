"""Dates of sidecars, as SerialEM, Thermo's Tomography, Warp and scripts write them."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from mrc_xarray.metadata.sidecar import dates

TIME = datetime.datetime(2022, 2, 4, 17, 7, 50)


@pytest.mark.parametrize(
    ("form", "year_first"),
    [
        ("%d-Feb-%y  %H:%M:%S", False),
        ("%y-Feb-%d  %H:%M:%S", True),
        # four digits are the year
        ("%Y-FEB-%d  %H:%M:%S", False),
        ("%d-feb-%Y %H:%M:%S", True),
        ("%Y-%m-%dT%H:%M:%S", False),
        ("%Y-%m-%d %H:%M:%S", True),
        ("%Y-%m-%d %H:%M:%S.000", True),
        ("%Y-%m-%dT%H:%M:%SZ", False),
        ("%Y-%m-%dT19:%M:%S+02:00", False),
        ("%m/%d/%Y %H:%M:%S", False),
        ("2/4/%y 5:%M:%S pm", True),
    ],
)
def test_forms_of_a_date(form: str, year_first: bool) -> None:
    assert dates.parse(TIME.strftime(form), year_first) == np.datetime64(TIME)


def test_midnight_and_noon() -> None:
    for text, hour in (("AM", 0), ("PM", 12)):
        expected = np.datetime64("2024-04-14T00:30:01") + np.timedelta64(hour, "h")
        assert dates.parse(f"04/14/2024 12:30:01 {text}", False) == expected


def test_the_title_says_which_two_digits_are_the_year() -> None:
    for title in ("Tomography: TITAN52334000          22-Feb-04", "TOMOGRAPHY: T"):
        assert dates.is_year_first(["any", title])
    for title in ("SerialEM: in the tomography room   04-Feb-22  12:00:00", ""):
        assert not dates.is_year_first(["any", title])


@pytest.mark.parametrize(
    "text",
    [
        "", "14-Mai-2024  17:57:50", "14-Mär-24  17:57:50", "31-Feb-21  12:39:50",
        "21-Nov-26", "2024-04-14", "21-Nov-126  12:00:00", "2021-Nov-2021  12:00:00",
        "2024-13-01 00:00:00", "0000-01-01 00:00:00", "14/04/2024 17:57:50",
        "0001-01-01T00:00:00+01:00", "yesterday",
    ],
)  # fmt: skip
def test_no_date(text: str) -> None:
    """Months in other languages, and days that do not exist, are unknown."""
    assert dates.parse(text, False) is None
