"""Settings: which layer wins, and that nothing unknown slips through."""

from __future__ import annotations

from pathlib import Path

import pytest

from manyview_server.config import ENV_PREFIX, ServeSettings, SettingsError


def load(*flags: str, file: str | None = None, tmp: Path | None = None, **variables: str) -> ServeSettings:
    arguments = list(flags)
    if file is not None and tmp is not None:
        path = tmp / "server.toml"
        path.write_text(file)
        arguments += ["--config", str(path)]
    return ServeSettings.load(arguments, {f"{ENV_PREFIX}{name.upper()}": value for name, value in variables.items()})


def test_a_missing_data_directory_says_how_to_set_it() -> None:
    with pytest.raises(SettingsError, match="data is required: set --data, MANYVIEW_SERVER_DATA, or data in --config"):
        load()


def test_defaults_need_only_the_data_directory() -> None:
    settings = load("--data", "/srv/data")
    assert settings.data == Path("/srv/data")
    assert settings.listen == "127.0.0.1:50051"
    assert settings.token_file is None
    assert not settings.exit_with_parent


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = 'data = "/file"\ndrain_s = 3\nheartbeat_s = 4\nmax_image_side = 77\n'
    settings = load("--drain-s", "1", file=file, tmp=tmp_path, drain_s="2", heartbeat_s="5", data="/variable")
    assert settings.drain_s == 1
    assert settings.heartbeat_s == 5
    assert settings.max_image_side == 77
    assert settings.data == Path("/variable")
    assert settings.max_batch_images == 256


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('data = "/from-file"')
    assert load(config=str(path)).data == Path("/from-file")
    assert load(f"--config={path}", config="/missing.toml").data == Path("/from-file")


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="dta"):
        load("--data", "x", file='dta = "/file"', tmp=tmp_path)


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match="MANYVIEW_SERVER_LISTN"):
        load("--data", "x", listn="0.0.0.0:1")


def test_an_unknown_flag_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load("--data", "x", "--listn", "y")
    assert "--listn" in capsys.readouterr().err


def test_help_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load("--help")
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in ServeSettings.model_fields)
    assert all(field.description for field in ServeSettings.model_fields.values())


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "data"),
        (["--data", "x", "--drain-s", "0"], "drain_s"),
        (["--data", "x", "--device", "tpu"], "device"),
        (["--data", "x", "--tls-cert", "c.pem"], "tls_key"),
        (["--data", "x", "--max-image-bytes", "99000000"], "max_image_bytes"),
        (["--data", "x", "--max-image-pixels", "200000000"], "max_image_pixels"),
        (["--data", "x", "--max-image-side", "65536"], "max_image_side"),
        (["--data", "x", "--upload-window-batches", "many"], "upload_window_batches"),
        (["--data", "x", "--config", "/missing.toml"], "missing.toml"),
        (["--data", "x", "--config"], "--config"),
    ],
)
def test_what_is_missing_or_out_of_range_is_named(flags: list[str], name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(*flags)


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"server\.toml"):
        load("--data", "x", file="= =", tmp=tmp_path)


def test_boolean_flags_stand_alone() -> None:
    assert load("--data", "x", "--exit-with-parent").exit_with_parent
    assert load("--data", "x", exit_with_parent="true").exit_with_parent


def test_other_variables_of_the_environment_do_not_matter() -> None:
    assert ServeSettings.load(["--data", "x"], {"DATA": "/wrong", "LISTEN": "wrong", "PATH": "/bin"}).data == Path("x")


def test_settings_cannot_be_changed() -> None:
    settings = load("--data", "x")
    with pytest.raises(ValueError, match="frozen"):
        settings.listen = "0.0.0.0:1"  # type: ignore[misc]
