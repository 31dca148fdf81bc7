"""Configuration: what is accepted, what is refused and in which words, and what is made of the declarations."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from harness import ROOT
from looseends.wire import NEVER
from looseends_daemon import config
from looseends_daemon.config import ConfigError, kinds
from looseends_daemon.config.declared import tables
from looseends_daemon.config.lines import lines_of
from looseends_daemon.config.settings import LATER

CASES = sorted((Path(__file__).parent / "configs").glob("*.toml"))
KEY = "whsec_bm90IGEgc2VjcmV0LCBtYWtlIHlvdXIgb3duIG9uZSE="
HOME = {"HOME": "/h/ada"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_error_names_file_line_and_what_is_allowed(case: Path) -> None:
    text = case.read_text("utf-8")
    expected = re.findall(r"^# expect: (.*)$", text, re.MULTILINE)
    found = config.check(text, file="config.toml")
    assert len(found) == len(expected), found
    for line, wanted in zip(found, expected, strict=True):
        assert line.startswith(f"config.toml:{wanted}"), line
        assert "\n" not in line
    with pytest.raises(ConfigError) as refused:
        config.load(str(case), HOME)
    assert len(refused.value.errors) == len(expected)


def test_the_cases_would_notice_a_wrong_line() -> None:
    """The planted fault: one line further down, and every expected place is wrong."""
    case = next(case for case in CASES if case.stem == "unknown-key")
    moved = "\n" + case.read_text("utf-8")
    assert not config.check(moved)[0].startswith("config.toml:4:")


def test_the_example_at_the_root_is_what_the_declarations_say_byte_for_byte() -> None:
    assert (ROOT / "config.example.toml").read_bytes() == config.render_example().encode()


def test_the_example_is_valid_and_changes_nothing(tmp_path: Path) -> None:
    example = tmp_path / "config.toml"
    example.write_text(config.render_example())
    assert config.load(str(example), HOME) == config.load(None, HOME)


def test_the_example_is_valid_with_everything_uncommented() -> None:
    lines = [re.sub(r"^#(?! )", "", line) for line in config.render_example().splitlines()]
    text = "\n".join(line for line in lines if "_file = " not in line)
    assert "[[endpoint]]" in text
    assert config.check(text) == []


def test_the_example_names_every_setting_and_says_a_sentence_about_it() -> None:
    example = config.render_example()
    for table in tables():
        assert f"[{table.name}]" in example
        for setting in table.settings:
            assert re.search(rf"^#?{setting.name} = ", example, re.MULTILINE), setting.name
            assert f"# {setting.kind.doc}\n" in example
            assert setting.kind.doc.endswith("."), setting.name


def test_nothing_is_both_declared_and_said_to_be_missing() -> None:
    declared = {f"{table.name}.{setting.name}" for table in tables() for setting in table.settings}
    assert not declared & LATER
    assert not {table.name for table in tables()} & LATER


def test_the_defaults_need_no_file_and_follow_the_state_folder() -> None:
    settings = config.load(None, HOME)
    assert settings.server.listen == ("127.0.0.1:3637", "unix:/h/ada/.local/state/looseends/looseends.sock")
    assert settings.storage.path == "/h/ada/.local/state/looseends/looseends.db"
    assert settings.detect.spools == ("/h/ada/.local/state/looseends/spool",)
    assert settings.server.instance
    moved = config.load(None, {**HOME, "XDG_STATE_HOME": "/var/state", "LOOSEENDS_SPOOL_DIR": "/spool"})
    assert moved.storage.path == "/var/state/looseends/looseends.db"
    assert moved.detect.spools == ("/spool",)


def test_a_relative_state_folder_is_ignored() -> None:
    assert config.load(None, {**HOME, "XDG_STATE_HOME": "state"}) == config.load(None, HOME)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[alerts]\ngroup_wait = "5s"\nsample_tasks = 3\n')
    environ = {
        **HOME,
        "LOOSEENDS_ALERTS_GROUP_WAIT": "250ms",
        "LOOSEENDS_SERVER_LISTEN": "127.0.0.1:0, unix:/tmp/ends.sock",
        "LOOSEENDS_NETWORK_ALLOW_PRIVATE": "false",
    }
    settings = config.load(str(file), environ)
    assert (settings.alerts.group_wait, settings.alerts.sample_tasks) == (0.25, 3)
    assert settings.server.listen == ("127.0.0.1:0", "unix:/tmp/ends.sock")
    assert settings.network.allow_private is False


def test_every_scalar_has_its_variable() -> None:
    for table in tables():
        for setting in table.settings if not table.array else ():
            text = "nonsense \x00"
            errors = config.check("", environ={f"LOOSEENDS_{table.name}_{setting.name}".upper(): text})
            assert len(errors) == 1, (table.name, setting.name)
            assert errors[0].startswith(f"environment: LOOSEENDS_{table.name.upper()}_{setting.name.upper()}=")


def test_a_mistyped_variable_is_an_error_and_the_clients_are_not_ours() -> None:
    assert config.check("", environ={"LOOSEENDS_URL": "http://x", "LOOSEENDS_SERVICE": "shop", "LOOSEENDS_TOKEN": "t"}) == []
    assert config.check("", environ={"LOOSEENDS_SERVER_LISTN": "x"}) == [
        'environment: unknown variable LOOSEENDS_SERVER_LISTN, did you mean "LOOSEENDS_SERVER_LISTEN"?'
    ]


def test_an_empty_variable_is_an_unset_one() -> None:
    assert config.load(None, {**HOME, "LOOSEENDS_ALERTS_GROUP_WAIT": ""}).alerts.group_wait == 1.0


def endpoint(tmp_path: Path, text: str) -> str:
    file = tmp_path / "config.toml"
    file.write_text(f'[[endpoint]]\nname = "ops"\n{text}')
    return str(file)


def test_secrets_are_read_from_files_beside_the_configuration(tmp_path: Path) -> None:
    newer = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
    (tmp_path / "keys").write_text(f"# newest first\n{newer}\n\n  {KEY}  \n")
    (tmp_path / "url").write_text("https://ops.example.org/hook?token=hidden\n")
    file = endpoint(tmp_path, 'url_file = "url"\nsecrets_file = "keys"\n')
    [found] = config.load(file, HOME).endpoints
    assert found.secrets == (newer, KEY)
    assert found.url == "https://ops.example.org/hook?token=hidden"
    assert config.check(Path(file).read_text()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file or directory"), (b"\n# none\n", "holds nothing"), (b"\xff\xfe", "is not UTF-8 text")],
)
def test_a_bad_secret_file_is_named_with_its_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    file = endpoint(tmp_path, 'url = "https://ops.example.org/"\nsecrets_file = "keys"\n')
    with pytest.raises(ConfigError) as refused:
        config.load(file, HOME)
    assert refused.value.errors == [f'{file}:4: endpoint.secrets_file = "keys": {words}']


def test_no_error_repeats_a_secret(tmp_path: Path) -> None:
    for url, key, errors in (("ops/hidden", "whsec_hidden", 2), ("ftp://ops/hidden", KEY, 1)):
        file = endpoint(tmp_path, f'url = "{url}"\nsecrets = ["{key}"]\n')
        with pytest.raises(ConfigError) as refused:
            config.load(file, HOME)
        assert len(refused.value.errors) == errors
        assert "hidden" not in str(refused.value)


def test_show_is_valid_and_masks_every_secret(tmp_path: Path) -> None:
    file = endpoint(tmp_path, f'url = "https://ops.example.org:8443/hidden"\nsecrets = ["{KEY}", "{KEY}"]\ntimeout = "500ms"\n')
    file_text = Path(file).read_text().replace('"500ms"', '"5s"')
    Path(file).write_text(file_text)
    shown = config.show(config.load(file, HOME))
    assert 'url = "https://ops.example.org:8443/***"' in shown
    assert 'secrets = ["whsec_***", "whsec_***"]' in shown
    assert "hidden" not in shown
    assert KEY not in shown
    assert 'timeout = "5s"' in shown
    assert config.check(shown.replace("whsec_***", KEY)) == []


def test_flags_win_over_everything_and_are_checked() -> None:
    settings = config.load(None, {**HOME, "LOOSEENDS_SERVER_LISTEN": "127.0.0.1:1"})
    flagged = config.with_flags(settings, listen=("127.0.0.1:2",), path="/tmp/x.db")
    assert (flagged.server.listen, flagged.storage.path) == (("127.0.0.1:2",), "/tmp/x.db")
    assert config.with_flags(settings) == settings
    with pytest.raises(ConfigError, match=r"^--listen: holds 'here'"):
        config.with_flags(settings, listen=("here",))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file") as refused:
        config.load(str(tmp_path / "none.toml"), HOME)
    assert refused.value.hint is not None
    assert "lines above" not in refused.value.hint, "there are no lines to mend"
    assert "looseends config init" in refused.value.hint
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(str(tmp_path), HOME)
    odd = tmp_path / "odd.toml"
    odd.write_bytes(b"[log]\nlevel = '\xff'\n")
    with pytest.raises(ConfigError, match=r"odd\.toml:2: is not UTF-8 text"):
        config.load(str(odd), HOME)
    odd.write_bytes(b"#" * (config.FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="is larger than"):
        config.load(str(odd), HOME)
    assert stat.S_ISREG(odd.stat().st_mode)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5h", 5400), ("1h30m", 5400), ("7d", 604_800), ("never", NEVER)],
)
def test_durations_are_read_and_written_back(text: str, seconds: float) -> None:
    kind = kinds.Duration("How long.", "0s", "30d", never=True)
    assert kind.read(text) == seconds
    assert kind.read(kind.write(seconds).strip('"')) == seconds


def test_the_rules_for_decisions_hold_no_secret_and_change_with_the_address(tmp_path: Path) -> None:
    file = endpoint(tmp_path, f'url = "https://ops.example.org/hidden"\nsecrets = ["{KEY}"]\nmin_severity = "critical"\n')
    rules = config.alert_rules(config.load(file, HOME))
    [one] = rules.endpoints
    assert (one.name, one.min_severity, one.include_args) == ("ops", "critical", False)
    assert "hidden" not in repr(rules)
    assert KEY not in repr(rules)
    Path(file).write_text(Path(file).read_text().replace("hidden", "other"))
    assert config.alert_rules(config.load(file, HOME)).endpoints[0].fingerprint != one.fingerprint


def test_task_rules_keep_their_order_and_what_they_leave_open() -> None:
    text = '[[task]]\nmatch = "a/b"\ndeadline = "never"\n[[task]]\nmatch = "*/*"\nfailures = "ledger"\n'
    assert config.check(text) == []
    settings = config._Reading("x", {}, None).settings({"task": [{"match": "a/b", "deadline": "never"}, {"match": "*/*"}]})
    assert settings is not None
    first, second = config.policy(settings).rules
    assert (first.match, first.deadline, first.severity) == ("a/b", NEVER, None)
    assert (second.deadline, second.open_after, second.failures) == (None, 1, "incident")


def test_lines_are_found_in_every_way_of_writing() -> None:
    text = (
        "top = 1\n\n[a] # x\nb = [\n  1, # ]\n  2,\n]\nc.d = '''\n[no]\n'''\n"
        '[[t]]\nx = {y = 1}\n"q r" = "\u2028"\n[[t]]\nx = 2\n[t.sub]\nz = 1\n'
    )
    lines = lines_of(text)
    expected = {("top",): 1, ("a",): 3, ("a", "b"): 4, ("a", "c", "d"): 8, ("t", 0): 11, ("t", 0, "x", "y"): 12}
    expected |= {("t", 0, "q r"): 13, ("t", 1): 14, ("t", 1, "x"): 15, ("t", 1, "sub"): 16, ("t", 1, "sub", "z"): 17}
    assert {path: lines.get(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("listen", "command"),
    [
        ("127.0.0.1:3637,unix:/s", "curl -s {auth} http://127.0.0.1:3637"),
        ("[::1]:80", "curl -s {auth} 'http://[::1]:80'"),
        ("0.0.0.0:3637", "curl -s {auth} http://127.0.0.1:3637"),
        ("127.0.0.1:0,unix:/run/a b.sock", "curl -s {auth} --unix-socket '/run/a b.sock' http://localhost"),
    ],
)
def test_the_command_of_a_notice_asks_this_daemon(listen: str, command: str) -> None:
    settings = config.load(None, {**HOME, "LOOSEENDS_SERVER_LISTEN": listen, "LOOSEENDS_STORAGE_PATH": "/d/x.db"})
    auth = """-H "Authorization: Bearer $(cat /d/x.db.token)\""""
    assert config.alert_rules(settings).command == command.format(auth=auth)
