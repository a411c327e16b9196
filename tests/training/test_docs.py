"""What docs/models.md shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from training import registry
from training.forecaster import Forecaster
from training.registry import model_params

DOC = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_architecture_of_the_page_can_be_registered_and_built(monkeypatch):
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    code = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert code
    exec(compile(code.group(1), str(DOC), "exec"), {})
    built = Forecaster(model="mlp", params={"hidden_size": 4}, channels=2, context=5, horizon=3, levels=(0.1, 0.5, 0.9))
    assert built(torch.ones(2, 5, 2)).shape == (2, 3, 2, 3)


def test_the_table_lists_every_built_in_with_its_defaults():
    text = DOC.read_text()
    for name in registry._BUILT_IN:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert dict(re.findall(r"`(\w+)` \(([\d.]+)\)", row)) == {k: f"{v:g}" for k, v in model_params(name).items()}
