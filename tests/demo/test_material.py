"""The written material, and how it is refused where it is wrong."""

from __future__ import annotations

import pytest

from demo.counts import tables
from demo.material import SCENARIOS
from demo.reading import DATA, read_files, read_material
from demo.slots import MaterialError

GOOD = """
tools:
- name: set_lamp
  description: Switch a lamp.
  parameters:
    room: {type: string}
    level: {type: integer, minimum: 0, maximum: 100, optional: true}
  values: {room: [kitchen, study], level: 10..90}
  requests:
  - {ask: "Light in the {room}", args: {room: "{room}"}}
  - {ask: "{room} at {level} percent", args: {room: "{room}", level: "{level}"}}
  many:
  - {ask: "{room} and {room2}", calls: [{room: "{room}"}, {room: "{room2}"}]}
  result: {ok: true}
  say: "Done."
no_tool:
- {tools: [set_lamp], ask: "What is a lamp?", say: "A source of light."}
dialogs:
- scenario: multi_tool_sequential
  tools: [set_lamp]
  turns:
  - user: "Kitchen, then study"
  - call: {set_lamp: {room: kitchen}}
  - result: ok
  - call: [{set_lamp: {room: study}}, {set_lamp: {room: hall}}]
  - result: [ok, ok]
  - say: "Both are on."
"""


def read(tmp_path, text: str):
    path = tmp_path / "home.yaml"
    path.write_text(text, encoding="utf-8")
    return read_files([path])


def test_all_of_it_reads_without_a_fault(material):
    # The fixture has read it; a fault would have been an error. This is what there is.
    assert len(material.tools) >= 415
    assert len(material.dialogs) + len(material.no_tool) >= 700
    assert {dialog.scenario for dialog in material.dialogs} == set(SCENARIOS)
    for tool in material.tools.values():
        assert tool.requests, tool.name
        assert len(tool.description) > 5, tool.name


def test_the_readme_states_what_there_is(material):
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert "\n".join(tables(material)) in readme


def test_a_file_is_read_into_tools_and_dialogues(tmp_path):
    material, faults = read(tmp_path, GOOD)
    assert faults == []
    tool = material.tools["set_lamp"]
    assert (tool.required, tool.result, tool.file) == (("room",), '{"ok": true}', "home")
    assert "optional" not in tool.properties["level"]
    assert len(tool.many[0].calls) == 2
    assert material.no_tool[0].scenario == "no_tool_needed"
    assert [len(turn.calls) for turn in material.dialogs[0].turns] == [0, 1, 0, 2, 0, 0]


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ('args: {room: "{room}"}', 'args: {rom: 1, room: "{room}"}', "'rom' was unexpected"),
        ('level: "{level}"', 'level: "a {level}"', "is not of type 'integer'"),
        ("level: 10..90", "level: 110..190", "greater than the maximum"),
        ('"Light in the {room}"', '"Light in the {rooom}"', "nobody lists the slot {rooom}"),
        ("level: 10..90", "level: ten", "neither a list of values nor a range"),
        ("{type: string}", "{type: strin}", "no JSON Schema"),
        ("scenario: multi_tool_sequential", "scenario: sequential", "no scenario 'sequential'"),
        ("  - user: ", "  - says: ", "a turn is user, call, result or say, not 'says'"),
        ("  - result: ok\n", "", "a call cannot follow call"),
        ("[ok, ok]", "[ok]", "1 results for 2 calls"),
        ('  - say: "Both are on."\n', "", "it ends with a result"),
        (
            "call: {set_lamp: {room: kitchen}}",
            "call: {set_fan: {}}",
            "set_fan is called and not among its tools",
        ),
        ("  tools: [set_lamp]\n  turns", "  tools: [set_fan]\n  turns", "no tool set_fan"),
        ("  description: Switch a lamp.\n", "", "KeyError 'description'"),
        ("tools:\n", "tools: {\n", "not YAML"),
        ("dialogs:\n", "dialogs:\n- 5\n", "TypeError"),
        (GOOD, "just a text", "holds a str"),
    ],
)
def test_a_fault_is_told_with_its_place(tmp_path, right, wrong, fault):
    assert right in GOOD
    _, faults = read(tmp_path, GOOD.replace(right, wrong, 1))
    assert any(fault in line and "home" in line for line in faults), faults


def test_a_name_is_taken_once(tmp_path):
    _, faults = read(
        tmp_path, GOOD.replace("no_tool:", GOOD.split("tools:\n")[1].split("no_tool:")[0] + "no_tool:")
    )
    assert faults == ["home: tool 1 set_lamp: the name is taken"]


def test_all_faults_are_told_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD.replace("{type: string}", "{type: strin}"), encoding="utf-8")
    (tmp_path / "b.yaml").write_text("tools: [1, 2]", encoding="utf-8")
    with pytest.raises(MaterialError) as refused:
        read_material(tmp_path)
    assert len(str(refused.value).splitlines()) >= 4


SETTING = """
settings:
- system: "House rule: lamps never above half."
  today: true
  tools: [set_lamp]
  values: {level: 10..50}
  dialogs:
  - scenario: single_tool
    turns:
    - user: "Study at {level}"
    - call: {set_lamp: {room: study, level: "{level}"}}
"""


def test_a_setting_has_a_system_text_and_several_dialogues(tmp_path):
    material, faults = read(tmp_path, GOOD + SETTING)
    assert faults == []
    assert material.settings[0].has_date
    assert material.settings[0].dialogs[0].tools == ("set_lamp",)


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("lamps never", "{lamps} never", "the system text of a setting has no slots"),
        ("room: study", "room: 1", "1 is not of type 'string'"),
        ("  tools: [set_lamp]", "  tool: [set_lamp]", "KeyError 'tools'"),
    ],
)
def test_a_setting_is_checked_like_all_else(tmp_path, right, wrong, fault):
    _, faults = read(tmp_path, GOOD + SETTING.replace(right, wrong, 1))
    assert any(fault in line and "setting" in line for line in faults), faults
