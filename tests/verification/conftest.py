"""Tests of measured claims take the claims of their file."""

import pytest

pytest.register_assert_rewrite("measured_claims")


def pytest_generate_tests(metafunc):
    part = getattr(metafunc.module, "PART", None)
    if part is not None:
        from measured_claims import cases_of

        for argument, cases in cases_of(part).items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, cases)
