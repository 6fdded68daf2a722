"""Fixtures of the tests of the command line."""

import sys

import pytest

from medunet.cli import app as cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that runs `medunet ...` and gives exit code and all output with line breaks removed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medunet", *(str(argument) for argument in arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        output = capsys.readouterr()
        text = " ".join((output.out + output.err).split())
        assert "Traceback" not in text
        return code, text

    return run
