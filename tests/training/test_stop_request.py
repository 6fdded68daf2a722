"""The system's request to end: what the signals do at which time, and that they are given back."""

import os
import signal
import threading
from contextlib import suppress
from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel

from medunet.base.errors import InputError, PreemptedError
from medunet.compute.processes import LostProcessError
from medunet.training import stop_request
from medunet.training.stop_request import SIGNALS, StopRequest


@pytest.fixture(autouse=True)
def keep_handlers():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_first_step_the_command_ends_at_once(number: signal.Signals):
    message = f"asked to end by {number.name}.*Run the same command"
    with pytest.raises(PreemptedError, match=message) as caught, StopRequest().listening():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == 75


def test_no_code_that_it_interrupts_takes_it_for_a_fault():
    def validate(value: str) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return value

    class Strict(BaseModel):
        key: Annotated[str, AfterValidator(validate)]

    def go_on() -> None:
        with StopRequest().listening():
            with suppress(Exception):
                Strict(key="value")
            pytest.fail("went on")

    with pytest.raises(PreemptedError, match="asked to end by SIGTERM"):
        go_on()


def test_an_error_that_it_was_turned_into_is_none_of_this_one():
    def turn() -> None:
        with StopRequest().listening():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as error:  # as pybind11 does
                raise RuntimeError("unknown") from error

    with pytest.raises(PreemptedError, match="with no step in work"):
        turn()


def test_a_signal_that_was_lost_may_be_sent_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stop_request, "_END_S", 0.0)

    def lose() -> None:
        with StopRequest().listening():
            with suppress(BaseException):
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")

    with pytest.raises(PreemptedError):
        lose()


def test_a_second_signal_does_not_interrupt_the_end():
    ended = []

    def end() -> None:
        with StopRequest().listening():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                ended.append(True)

    with pytest.raises(PreemptedError):
        end()
    assert ended == [True]


def test_while_a_network_is_trained_the_signal_waits():
    with StopRequest().listening() as stop, stop.deferred():
        assert not stop.is_asked
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.is_asked


def test_a_held_signal_is_answered_at_the_end():
    reached = []

    def hold() -> None:
        with StopRequest().listening() as stop:
            with stop.held():
                reached.append("unasked")
            with stop.held():
                os.kill(os.getpid(), signal.SIGTERM)
                reached.append("asked")
            reached.append("after it")

    with pytest.raises(PreemptedError, match="asked to end by SIGTERM"):
        hold()
    assert reached == ["unasked", "asked"]


def test_a_process_that_was_lost_meanwhile_is_no_error_of_this_one():
    lost = LostProcessError("another process has ended", where="training together")

    def lose_one() -> None:
        with StopRequest().listening() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            raise lost

    with pytest.raises(PreemptedError, match="another process has ended already"):
        lose_one()
    with pytest.raises(InputError, match="training together: another process"), StopRequest().listening():
        raise lost


def test_other_threads_get_no_signals():
    errors = []

    def listen() -> None:
        try:
            with StopRequest().listening() as stop:
                assert not stop.is_asked
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert errors == []


def test_a_forked_child_leaves_the_signal_to_its_parent():
    with StopRequest().listening() as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(0 if not stop.is_asked else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
