"""Run the Python blocks of the user's own guide as they stand, in order, in one namespace, in the current folder.

    python -m tests.contracts.run_users_guide PAGE

What the guide takes for granted is supplied: a BurstGPT trace where it reads one (synthetic, some 200 rows), and saved
models under the names that its service loads, which are not those that its training script saves. `epochs=N` becomes
`epochs=1`. Where there is no CUDA, a block that asks for it must raise the library's DeviceError; it then runs again
with 'cuda' replaced by 'cpu'. Its block on saving runs twice: in order, where `predictor` holds no transformer and both
calls say so and return False, and with the predictor that trained one.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from tests.contracts.run_blocks import python_blocks, run
from training.errors import DeviceError
from training.synth import synthesize
from training.trace_write import write_trace

TRACE = Path("dataset/BurstGPT_1_cleaned.csv")
_MISSING = re.compile(r"expected a CUDA GPU, got torch .*(built without CUDA|finds no usable GPU); .* cpu$")


def main(page: Path) -> None:
    TRACE.parent.mkdir()
    write_trace(synthesize(days=0.005, rate_per_s=0.5, seed=3), TRACE, format="burstgpt")
    names: dict[str, Any] = {"__name__": "__main__"}
    refused = 0
    for number, block in enumerate(python_blocks(page), start=1):
        for model in ("lstm", "transformer"):
            if f"models/offline_{model}_final.pth" in block:
                shutil.copy(f"models/{model}_offline_final.pth", f"models/offline_{model}_final.pth")
        refused += run_anywhere(re.sub(r"\bepochs=\d+", "epochs=1", block), page, names)
        print(f"block {number} ran", flush=True)
        check(block, names)
        if "large_transformer" in block:
            names["_trained"] = names["predictor"]
        if "predictor.save_model('transformer', model_path)" in block:
            assert not Path(names["model_path"]).exists()
            again = {**names, "predictor": names["_trained"]}
            run_anywhere(block, page, again)
            assert Path(names["model_path"]).exists()
            assert again["predictor"].model_manager.active_models["transformer"].model_name == "loaded_transformer"
    assert torch.cuda.is_available() or refused >= 5, refused
    print("all blocks ran")


def run_anywhere(block: str, page: Path, names: dict[str, Any]) -> bool:
    """Run a block; True when it was refused for want of CUDA and ran on the CPU instead."""
    before = dict(names)
    try:
        run(block, page, names)
        return False
    except DeviceError as error:
        if torch.cuda.is_available() or not _MISSING.search(str(error)):
            raise
    names.clear()
    names.update(before)
    run(block.replace("'cuda'", "'cpu'").replace("ModelDevice.CUDA", "ModelDevice.CPU"), page, names)
    return True


def check(block: str, names: dict[str, Any]) -> None:
    """The numbers that a block leaves behind are honest."""
    last = names["data"]["Timestamp"].iloc[-1] if "data" in names else None
    if "prediction = predictor.predict_next_request" in block:
        found = names["prediction"]["predictions"]
        assert list(found) == ["lstm", "dlinear", "transformer", "gru"]
        assert all(row["timestamp"] > last and 0 <= row["confidence"] <= 1 for row in found.values())
    if "my_custom_model" in block:
        assert "expected a TrainingResult, got NoneType" in names["training_results"]["custom"].metadata["error"]
        assert "expected a PredictionResult" in names["predictions"]["summary"]["failed"]["custom"]
    if "best_model = " in block:
        assert names["best_model"] in ("lstm", "dlinear", "transformer", "gru")
        assert names["comparison"]["performance_summary"]["ranking"][-1] == "custom"
    if "class InferenceService" in block:
        assert set(names["prediction"]["predictions"]) == {"lstm", "transformer"}
        assert set(names["service"].get_model_info()) == {"lstm", "transformer"}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
