from __future__ import annotations

import pytest

from edge.cli.session import close_logging
from edge.cli.start import run


@pytest.fixture
def cli(capsys):
    """Runs the program in this process: exit code, standard output, standard error."""

    def call(*args):
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    yield call
    close_logging()
