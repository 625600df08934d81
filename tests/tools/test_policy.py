"""What may run: rules by tool, source and argument, from a file."""

from __future__ import annotations

import pytest

from edge.errors import ToolsError
from edge.tools.builtin import builtin_tools
from edge.tools.config import ToolsConfig
from edge.tools.policy import Policy, Rule, read_policy
from tests.tools.fakes import make_tool

READ = make_tool("read_file", None, effects=["read"], source="builtin")
WRITE = make_tool("write_file", None, effects=["write"], source="builtin")
GIT = make_tool("git_push", None, effects=["execute"], source="mcp:git")


def action(policy, tool, **arguments):
    return policy.decide(tool, arguments)[0]


@pytest.mark.parametrize(("effects", "wanted"), [
    ([], "allow"), (["read"], "allow"), (["network"], "allow"), (["write"], "ask"), (["send", "network"], "ask"),
    (["execute"], "ask"),
])  # fmt: skip
def test_without_rules_what_changes_something_is_asked_about(effects, wanted):
    tool = make_tool("x", None, effects=effects)
    assert action(Policy(), tool) == wanted
    assert action(Policy(assume_yes=True), tool) == "allow"
    assert action(Policy(default="deny"), tool) == ("deny" if wanted == "ask" else "allow")


def test_the_first_rule_that_matches_decides_and_a_deny_rule_always():
    policy = Policy(
        rule=(
            Rule(action="allow", tool="write_*"),
            Rule(action="ask", tool="write_file"),
            Rule(action="deny", tool="*", arguments={"path": "*.env"}),
        )
    )
    assert action(policy, WRITE, path="a.txt") == "allow"
    assert action(policy, WRITE, path="prod.env") == "deny"
    assert action(policy, READ, path="prod.env") == "deny"
    assert action(policy.model_copy(update={"assume_yes": True}), READ, path="prod.env") == "deny"


def test_rules_name_sources():
    policy = Policy(rule=(Rule(action="deny", source="mcp:*"), Rule(action="allow", source="builtin")))
    assert action(policy, GIT) == "deny"
    assert action(policy, WRITE) == "allow"


@pytest.mark.parametrize(("rule", "arguments", "wanted"), [
    ({"arguments": {"path": "notes/*"}}, {"path": "notes/a"}, True),
    ({"arguments": {"path": "notes/*"}}, {"path": "other/a"}, False),
    ({"arguments": {"path": "notes/*"}}, {}, False),
    ({"arguments": {"n": "5"}}, {"n": 5}, True),
    ({"regex": {"command": r"git (status|log)"}}, {"command": "git log"}, True),
    ({"regex": {"command": r"git (status|log)"}}, {"command": "git log; rm -rf /"}, False),
    ({"regex": {"command": r"git log"}}, {"command": "git log\n"}, False),
    ({"regex": {"to": r'\["[a-z]+@example\.org"\]'}}, {"to": ["ann@example.org"]}, True),
    ({"regex": {"to": r'\["[a-z]+@example\.org"\]'}}, {"to": ["ann@example.org", "spy@x.org"]}, False),
])  # fmt: skip
def test_argument_patterns(rule, arguments, wanted):
    policy = Policy(rule=(Rule(action="allow", **rule),))
    assert (action(policy, WRITE, **arguments) == "allow") is wanted


@pytest.mark.parametrize(
    "path", ["notes/../secret", "./notes/../secret", "/workspace/notes/../secret", "notes/..//secret"]
)
def test_dots_in_a_path_are_no_way_around_a_rule(workspace, path):
    tools = {tool.name: tool for tool in builtin_tools(ToolsConfig(), workspace)}
    policy = Policy(
        rule=(
            Rule(action="allow", arguments={"path": "notes/*"}),
            Rule(action="deny", arguments={"path": "secret"}),
        )
    )
    assert action(policy, tools["write_file"], path=path) == "deny"
    assert action(policy, tools["write_file"], path="./notes/x") == "allow"


def write(tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path):
    text = 'default = "deny"\n[[rule]]\ntool = "write_file"\narguments = { path = "notes/*" }\naction = "allow"\n'
    policy = read_policy(write(tmp_path, text))
    assert action(policy, WRITE, path="notes/x") == "allow"
    assert action(policy, WRITE, path="x") == "deny"


@pytest.mark.parametrize(("text", "fault"), [
    ("rule = 1", "rule"),
    ('[[rule]]\ntool = "x"', "rule.0.action: Field required"),
    ('[[rule]]\naction = "maybe"', "'allow', 'ask' or 'deny'"),
    ('[[rule]]\naction = "allow"\ntol = "x"', "rule.0.tol: Extra inputs"),
    ('[[rule]]\naction = "allow"\nregex = { a = "(" }', "no regular expression"),
    ("assume_yes = true", "use --yes"),
    ("= x", "is not TOML"),
])  # fmt: skip
def test_a_file_with_a_mistake_is_refused(tmp_path, text, fault):
    with pytest.raises(ToolsError) as caught:
        read_policy(write(tmp_path, text))
    assert fault in str(caught.value)
    assert str(caught.value).startswith(f"the policy {tmp_path}")
    assert "\n" not in str(caught.value)
