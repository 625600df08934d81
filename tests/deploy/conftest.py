"""The command line's fixture, for the commands of this room."""

from tests.cli.conftest import cli  # noqa: F401 - a fixture
