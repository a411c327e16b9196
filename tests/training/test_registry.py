"""The registry: built-in names, the caller's own, and those of installed packages."""

from __future__ import annotations

import pytest

from training import registry
from training.errors import ConfigError
from training.registry import model_class, model_names, model_params


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed package that offers two models, one of them broken."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    facts = tmp_path / "plug-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[fcast.models]\nplugged = plug:Plugged\nbroken = plug:Missing\n")
    (tmp_path / "plug.py").write_text(
        "from torch import nn\n\n\nclass Plugged(nn.Flatten):\n"
        "    def __init__(self, channels, context, horizon, *, width: int = 3):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plugin")
def test_models_of_installed_packages_are_known_by_name():
    assert "plugged" in model_names()
    assert model_params("plugged") == {"width": 3}


@pytest.mark.usefixtures("plugin")
def test_a_package_that_cannot_be_imported_says_so():
    with pytest.raises(ConfigError, match=r"--model broken: expected to import plug:Missing.*repair that package"):
        model_class("broken")


def test_built_in_models_come_first():
    assert model_names()[:4] == ["lstm", "gru", "dlinear", "transformer"]


def test_an_unknown_model_lists_all_known_ones():
    with pytest.raises(ConfigError, match="known: damped_holt, dlinear, .* multiscale, .* transformer"):
        model_class("prophet")
