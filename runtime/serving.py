"""Which model is in service: one place that all streams of a predictor look at, so that a swap is one assignment.

A forecast takes `model` once and stays with it to its end. So nobody waits for a swap, and a swap waits for nobody; a
model that has left is freed when the last forecast under way has ended.
"""

from __future__ import annotations

import threading

from .errors import ArtifactError
from .model import Model


class Serving:
    """The model in service, and the one before it, which `rollback` goes back to.

    Args:
        model: the first.
    """

    __slots__ = ("_lock", "_previous", "model")

    def __init__(self, model: Model) -> None:
        self.model = model
        self._previous: Model | None = None
        self._lock = threading.Lock()  # between swaps; who forecasts never takes it

    def swap(self, model: Model) -> bool:
        """Put a model into service unless its version is there already; whether it was put there."""
        with self._lock:
            if model.folder.name == self.model.folder.name:
                return False
            self._previous, self.model = self.model, model
            return True

    def rollback(self) -> None:
        """Change places with the model before.

        Raises:
            ArtifactError: there is none.
        """
        with self._lock:
            if self._previous is None:
                raise ArtifactError(
                    f"rollback: expected a version that was in service before {self.model.folder}, got none; "
                    "reload(version=N) takes any version"
                )
            self._previous, self.model = self.model, self._previous
