"""A file of settings, and the error that the start reports for an invalid one."""

from pathlib import Path

import pytest

from telemetry.config.loader import load
from telemetry.model.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(folder: Path, text: str = "", **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environ)
    return str(caught.value)
