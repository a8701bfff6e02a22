"""The early reader finds settings where the full reader finds them."""

from __future__ import annotations

from pathlib import Path

from manyview_server.config import ServeSettings
from manyview_server.early.settings import LISTEN, LOG_LEVELS, EarlySettings


def test_flags_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('data = "file"\nlisten = "127.0.0.1:1"\ntoken_file = "file"\nlog_level = "warning"\n')
    environment = {"MANYVIEW_SERVER_CONFIG": str(file), "manyview_server_listen": "127.0.0.1:2"}
    found = EarlySettings.read(["--token-file=flag", "--data", "flag"], environment)
    assert found == EarlySettings(data="flag", listen="127.0.0.1:2", token_file="flag", log_level="warning")


def test_wrong_values_are_left_to_the_full_reader() -> None:
    found = EarlySettings.read(["--log-level", "loud", "--config", "/nowhere.toml", "--data"], {})
    assert found == EarlySettings()


def test_the_defaults_are_those_of_the_full_reader() -> None:
    full = ServeSettings.model_fields
    assert full["listen"].default == LISTEN
    assert full["log_level"].default == EarlySettings().log_level
    assert f"^({'|'.join(LOG_LEVELS)})$" in str(full["log_level"].metadata)
