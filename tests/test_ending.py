"""Signals in words."""

import signal

import pytest

from onnxpress.ending import FAILURES, signal_name


def test_faults_of_compiled_code_are_signals_here() -> None:
    assert {signal_name(getattr(signal, name)) for name in FAILURES} == set(FAILURES)


@pytest.mark.parametrize("number", [signal.SIGRTMIN + 3, 250])
def test_signals_without_a_name_have_their_number(number: int) -> None:
    assert signal_name(int(number)) == f"signal {int(number)}"
