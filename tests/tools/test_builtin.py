"""The built-in tools that need neither network nor sandbox."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from datetime import datetime, timedelta
from email import message_from_bytes, policy

import pytest

from edge.errors import ToolsError
from edge.grammar import compile_tool
from edge.tools.builtin import builtin_schemas, builtin_tools
from edge.tools.config import ToolsConfig
from edge.tools.executable import CallContext
from edge.tools.running import execute
from edge.types import Tool

FIFTEEN = {
    "web_search", "get_webpage", "execute_python", "read_file", "write_file", "list_directory", "send_email",
    "get_current_datetime", "calculate", "translate", "get_weather", "create_calendar_event", "database_query",
    "http_request", "shell_command",
}  # fmt: skip


def test_the_fifteen_are_there_and_their_schemas_can_be_enforced():
    schemas = builtin_schemas()
    assert set(schemas) == FIFTEEN
    for entry in schemas.values():
        compiled = compile_tool(Tool(entry["name"], entry["parameters"]), declared_only=True)
        assert not compiled.late_checks, entry["name"]
        assert set(entry) == {"name", "description", "parameters", "effects", "timeout_s"}


def test_what_writes_sends_or_executes_says_so():
    effects = {name: set(entry["effects"]) for name, entry in builtin_schemas().items()}
    assert {name for name in effects if "write" in effects[name]} == {"write_file", "create_calendar_event"}
    assert {name for name in effects if "execute" in effects[name]} == {"execute_python", "shell_command"}
    assert {name for name in effects if "send" in effects[name]} == {
        "send_email",
        "http_request",
        "get_webpage",
    }


def test_an_unknown_built_in_is_refused(workspace):
    with pytest.raises(ToolsError, match="no built-in tool 'calcualte'; there are: web_search"):
        builtin_tools(ToolsConfig(builtin=("calcualte",)), workspace)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * (3 + 4) ** 2", "98"), ("2*3^2", "18"), ("7 // 2 + 7 % 4", "6"), ("sqrt(16)", "4.0"), ("1/4", "0.25"),
        ("-2 ** 2", "-4"), ("max(1, 5, 3)", "5"), ("max([1, 5, 3])", "5"), ("round(2.567, 1)", "2.6"),
        ("factorial(5)", "120"), ("6 × 7", "42"), ("3 > 2 and 1 < 2", "True"), ("1 if 2 > 1 else 0", "1"),
        ("sum((1, 2, 3))", "6"), ("2**64", "18446744073709551616"), ("log(e)", "1.0"), (" 1 + 1 ", "2"),
        ("comb(5, 2)", "10"), ("abs(-3)", "3"), ("0.1 + 0.2", "0.30000000000000004"),
    ],
)  # fmt: skip
def test_calculate(builtin, expression, value):
    result = builtin("calculate", expression=expression)
    assert (result.text, result.is_error) == (value, False)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('id')", "().__class__", "'a' * 10**9", "[1] * 10**9", "9**9**9**9", "10**10**10",
        "(2**9999) * (2**9999)", "factorial(10**6)", "factorial(3.5)", "1 << 10**9", "(lambda: 1)()", "x", "open('x')",
        "[x for x in [1]]", "{1: 2}", "1/0", "1 +", "", "(" * 300, "-" * 900 + "1", "1; 2", "f'{1}'", "(-8) ** 0.5",
        "round(1.5, ndigits=10**9)", "int('5')", "comb(10**6, 5*10**5)", "max.__class__", "sum([[1], [2]])", "abs([1])",
        "pow(2, 10**9)", "sqrt(-1)", "(1).real", "a := 3", "min()", "+" * 990, "gcd(1.5, 2)", "inf // 1 % 0",
    ],
)  # fmt: skip
def test_calculate_refuses_quickly_what_is_no_bounded_arithmetic(builtin, expression):
    started = time.monotonic()
    result = builtin("calculate", expression=expression)
    assert result.is_error
    assert "\n" not in result.text
    assert time.monotonic() - started < 1


def test_the_clock_knows_time_zones(builtin):
    utc = builtin("get_current_datetime", timezone="UTC").text
    tokyo = builtin("get_current_datetime", timezone="Asia/Tokyo").text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 \(\w+day, UTC\)", utc)
    assert "+09:00" in tokyo
    apart = datetime.fromisoformat(tokyo.split()[0]) - datetime.fromisoformat(utc.split()[0])
    assert abs(apart) < timedelta(seconds=5)
    assert builtin("get_current_datetime").text


@pytest.mark.parametrize(
    "zone", ["Paris", "../../etc/passwd", "/etc/localtime", "Mars/Base", "\0", "x" * 5000]
)
def test_an_unknown_time_zone_is_an_error_with_help(builtin, zone):
    result = builtin("get_current_datetime", timezone=zone)
    assert result.is_error
    assert ("Europe/Paris" in result.text) or zone != "Paris"


@pytest.fixture
def shop(workspace):
    with sqlite3.connect(workspace.folder / "shop.db") as connection:
        connection.execute("CREATE TABLE items (name TEXT, price REAL, picture BLOB)")
        connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?)", [("pen", 1.5, None), ("ink", 7, b"\0\1")]
        )
    connection.close()
    return workspace.folder / "shop.db"


READING = {"database": {"default": "shop.db"}}


def test_a_query_gives_columns_and_rows(builtin, shop):
    result = builtin("database_query", READING, query="SELECT * FROM items WHERE price > ?", parameters=[2])
    assert result.text == '["name", "price", "picture"]\n["ink", 7.0, "<2 bytes>"]'
    assert "(no rows)" in builtin("database_query", READING, query="SELECT * FROM items WHERE 0").text
    assert '"price"' in builtin("database_query", READING, query="PRAGMA table_info(items)").text


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM items", "DROP TABLE items", "UPDATE items SET price = 0", "INSERT INTO items VALUES (1,2,3)",
        "ATTACH '/tmp/x.db' AS x", "PRAGMA journal_mode = DELETE", "PRAGMA writable_schema = ON",
        "VACUUM INTO '/tmp/x'", "SELECT load_extension('x')", "CREATE TEMP TABLE t (x)",
        "SELECT 1; DROP TABLE items", "WITH x AS (SELECT 1) DELETE FROM items", "BEGIN", "PRAGMA database_list",
        "EXPLAIN DELETE FROM items", "ANALYZE", "nonsense",
    ],
)  # fmt: skip
def test_a_database_is_only_read(builtin, shop, sql):
    before = shop.read_bytes()
    assert builtin("database_query", READING, query=sql).is_error
    assert shop.read_bytes() == before
    assert sorted(path.name for path in shop.parent.iterdir()) == ["shop.db"]


def test_a_database_is_written_where_that_is_allowed(builtin, shop):
    writable = {"database": {"default": "shop.db", "writable": True}}
    assert builtin("database_query", writable, query="UPDATE items SET price = 2").text == "2 rows changed"
    assert "[2.0]" in builtin("database_query", READING, query="SELECT DISTINCT price FROM items").text
    for sql in ("ATTACH '../x.db' AS x", "VACUUM INTO 'x'", "PRAGMA writable_schema = ON"):
        assert builtin("database_query", writable, query=sql).is_error


def test_an_endless_query_is_stopped(workspace, shop):
    tools = {t.name: t for t in builtin_tools(ToolsConfig(**READING), workspace)}
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    started = time.monotonic()
    result = execute(tools["database_query"], {"query": endless}, CallContext(0.3))
    assert result.text == "the query took too long and was stopped"
    assert time.monotonic() - started < 3


def test_rows_and_values_are_bounded(builtin, shop):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9999) SELECT i FROM n"
    result = builtin("database_query", READING, query=many)
    assert result.cut
    assert result.text.endswith("[500]\n[cut: the first 500 rows; use LIMIT and OFFSET]")
    assert builtin("database_query", READING, query="SELECT zeroblob(100000000)").is_error


def test_what_is_no_database_is_refused(builtin, workspace):
    (workspace.folder / "x.db").write_text("no database at all" * 100)
    assert "not a usable SQLite database" in builtin("database_query", query="SELECT 1", database="x.db").text
    assert "no database is configured" in builtin("database_query", query="SELECT 1").text
    assert builtin("database_query", query="SELECT 1", database="new.db").is_error
    assert not (workspace.folder / "new.db").exists()


def unfolded(path):
    return path.read_bytes().decode().replace("\r\n ", "").split("\r\n")


def test_events_go_into_one_calendar(builtin, workspace):
    builtin("create_calendar_event", title="A; B, C\nD", start="2026-05-04T15:00", timezone="Europe/Paris")
    builtin(
        "create_calendar_event",
        title="Trip " + "é" * 80,
        start="2026-05-05",
        end="2026-05-06",
        location="Rome",
    )
    path = workspace.folder / "calendar.ics"
    lines = unfolded(path)
    assert lines[0] == "BEGIN:VCALENDAR"
    assert lines[-2:] == ["END:VCALENDAR", ""]
    assert lines.count("BEGIN:VEVENT") == lines.count("END:VEVENT") == 2
    assert "SUMMARY:A\\; B\\, C\\nD" in lines
    assert "DTSTART:20260504T130000Z" in lines  # Paris is two hours ahead in May
    assert "DTEND:20260504T140000Z" in lines
    assert "DTSTART;VALUE=DATE:20260505" in lines
    assert "DTEND;VALUE=DATE:20260507" in lines
    assert "SUMMARY:Trip " + "é" * 80 in lines
    assert all(len(line) <= 75 for line in path.read_bytes().split(b"\r\n"))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"start": "tomorrow"}, "ISO 8601"),
        ({"start": "2026-05-04T15:00", "end": "2026-05-04T14:00"}, "not after the start"),
        ({"start": "2026-05-04", "end": "2026-05-04T14:00"}, "both"),
        ({"start": "2026-05-04T15:00", "timezone": "Mars"}, "no time zone"),
        ({"start": "0001-01-01T00:00", "timezone": "Asia/Tokyo"}, ""),
        ({"start": "9999-12-31"}, ""),
    ],
)
def test_an_event_without_sense_is_refused(builtin, workspace, arguments, fault):
    result = builtin("create_calendar_event", title="x", **arguments)
    assert result.is_error
    assert fault in result.text
    assert not (workspace.folder / "calendar.ics").exists()


def test_a_file_that_is_no_calendar_is_left_alone(builtin, workspace):
    (workspace.folder / "calendar.ics").write_text("my notes")
    assert builtin("create_calendar_event", title="x", start="2026-05-04").is_error
    assert (workspace.folder / "calendar.ics").read_text() == "my notes"


def test_mail_goes_into_the_outbox(builtin, workspace):
    mail = {"to": ["ann@example.org"], "subject": "Grüße", "body": "Hello\n.\nÄ"}
    result = builtin("send_email", {"email": {"outbox": "out", "sender": "me@example.org"}}, **mail)
    assert "not sent yet" in result.text
    (file,) = (workspace.folder / "out").iterdir()
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert (message["To"], message["From"], message["Subject"]) == (
        "ann@example.org",
        "me@example.org",
        "Grüße",
    )
    assert message.get_content() == "Hello\n.\nÄ\n"


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "a\r\nBcc: spy@example.org"},
        {"to": ["ann@example.org\nBcc: spy@example.org"]},
        {"to": ["ann@example.org, spy@example.org"]},
        {"to": ["ann"]},
        {"cc": ["x <spy@example.org>"]},
    ],
)
def test_headers_cannot_be_smuggled_into_mail(builtin, workspace, change):
    mail = {"to": ["ann@example.org"], "subject": "s", "body": "b"} | change
    assert builtin("send_email", {"email": {"outbox": "out"}}, **mail).is_error
    assert not (workspace.folder / "out").exists()


class FakeMailServer:
    """Takes one mail over SMTP without TLS."""

    def __init__(self):
        import socket
        import threading

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.lines = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rwb") as file:
            say = lambda text: (file.write(text + b"\r\n"), file.flush())  # noqa: E731
            say(b"220 fake")
            in_data = False
            for line in file:
                self.lines.append(line.rstrip(b"\r\n"))
                if in_data:
                    if line == b".\r\n":
                        in_data = False
                        say(b"250 taken")
                elif line.upper().startswith(b"EHLO"):
                    say(b"250-fake\r\n250 AUTH PLAIN")
                elif line.upper().startswith(b"DATA"):
                    in_data = True
                    say(b"354 go on")
                elif line.upper().startswith(b"QUIT"):
                    say(b"221 bye")
                    return
                elif line.upper().startswith(b"AUTH"):
                    say(b"235 ok")
                else:
                    say(b"250 ok")


def test_mail_goes_through_a_server_with_a_password_from_the_environment(builtin, monkeypatch):
    server = FakeMailServer()
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    email = {
        "host": "127.0.0.1", "port": server.port, "security": "none", "user": "me", "password_env": "MAIL_PASSWORD",
        "sender": "me@example.org",
    }  # fmt: skip
    result = builtin("send_email", {"email": email}, to=["ann@example.org"], subject="s", body="b")
    server.thread.join(5)
    server.socket.close()
    assert result.text == "sent to ann@example.org"
    assert b"rcpt TO:<ann@example.org>" in server.lines
    assert any(line.startswith(b"AUTH PLAIN") for line in server.lines)


def test_a_mail_server_that_is_not_there_is_an_error(builtin):
    email = {"host": "127.0.0.1", "port": 9, "security": "none"}
    result = builtin("send_email", {"email": email}, to=["a@example.org"], subject="s", body="b")
    assert "did not take it" in result.text


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("web_search", {"query": "x"}),
        ("get_weather", {"location": "Rome"}),
        ("translate", {"text": "x", "target_language": "fr"}),
        ("send_email", {"to": ["a@example.org"], "subject": "s", "body": "b"}),
    ],
)
def test_a_service_that_is_not_configured_is_a_clear_error(builtin, name, arguments):
    result = builtin(name, **arguments)
    assert result.is_error
    assert "configured" in result.text


def test_a_service_is_what_the_configuration_says(builtin):
    service = {"translate": {"command": ["echo", "{target_language}:", "{text}"]}}
    assert (
        builtin("translate", {"service": service}, text="hi; ls", target_language="fr").text == "fr: hi; ls"
    )


def test_the_schemas_are_readable_for_small_models():
    tools = [
        Tool(e["name"], e["parameters"], e["description"]).to_openai() for e in builtin_schemas().values()
    ]
    assert len(json.dumps(tools)) < 7000  # some 1,600 tokens
