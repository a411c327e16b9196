"""What the tests of training share."""

from __future__ import annotations

import pytest

from training import registry


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for name in registry._BUILT_IN:  # else a built-in that a test is the first to use would go too, and not come back
        registry.model_class(name)
    monkeypatch.setattr(registry, "_models", dict(registry._models))
