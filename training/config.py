"""What a training run is made of: command line or TOML -> frozen dataclasses -> saved beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from training.baselines import NAMES as BASELINES
from training.errors import ConfigError, nearest
from training.registry import model_class, model_params
from training.series import KINDS
from training.trace import GAP_S

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
PRECISIONS = ("fp32", "amp", "bf16", "fp16")
_UNITS = ("auto", "request")
_STATEFUL = ("lstm", "gru")
_CALENDARS = ("auto", "none", "day", "week", "day+week")


def _check(name: str, ok: bool, expected: str, got: object) -> None:
    if not ok:
        raise ConfigError(f"{name}: expected {expected}, got {got}; correct it")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What the model sees and forecasts."""

    series: str = "requests"
    """"requests": one step per request; "load": one step per time bin."""
    bin_s: float = 60.0
    """Width of a bin of a load series, seconds: one step of the context."""
    step_s: float | None = None
    """Width of a forecast step of a load series, a whole multiple of `bin_s`; None for one bin."""
    gap_s: float = GAP_S
    """A silence longer than this many seconds is missing data."""
    context: int = 50
    """L, steps seen: bins, or requests."""
    horizon: int = 10
    """H, steps forecast."""
    levels: tuple[float, ...] = LEVELS
    """Quantile levels, ascending."""
    split: tuple[float, float, float] = (60.0, 20.0, 20.0)
    """Proportions of train, validation and test steps, in time order; 0 leaves the test part out."""
    stride: int = 1
    """Train on every stride-th window; for traces of millions of requests."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check("series", self.series in KINDS, f"one of {', '.join(KINDS)}", self.series)
        _check("bin_s", 1e-3 <= self.bin_s < 1e9, "0.001 to 1e9 seconds", self.bin_s)
        shortest_s = self.bin_s if self.series == "load" else 0.0
        _check("gap_s", shortest_s <= self.gap_s < 1e12 and self.gap_s > 0, "seconds, at least one bin", self.gap_s)
        _check("context", 2 <= self.context <= 10_000, "2 to 10000 steps", self.context)
        if self.step_s is not None:
            _check("step_s", self.series == "load", "a load series, whose bins it joins", f"a {self.series} series")
            off = abs(self.ratio * self.bin_s - self.step_s)
            fits = self.ratio >= 1 and off < 1e-9 * self.step_s
            _check("step_s", fits, f"a whole multiple of the {self.bin_s:g} s bins", self.step_s)
            whole = self.context % self.ratio == 0 and self.context >= 2 * self.ratio
            _check("context", whole, f"two or more forecast steps, a multiple of {self.ratio} bins", self.context)
        _check("horizon", 1 <= self.horizon <= 1_000, "1 to 1000 steps", self.horizon)
        _check("stride", self.stride >= 1, "at least 1", self.stride)
        _check(
            "levels",
            1 <= len(self.levels) <= 256
            and list(self.levels) == sorted(set(self.levels))
            and all(0 < level < 1 for level in self.levels),
            "ascending numbers between 0 and 1",
            self.levels,
        )
        fits = len(self.split) == 3 and min(self.split[:2]) > 0 and self.split[2] >= 0
        _check("split", fits, "three positive proportions (the last may be 0)", self.split)

    @property
    def ratio(self) -> int:
        """Bins of the context in one forecast step."""
        return 1 if self.step_s is None else round(self.step_s / self.bin_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecasterConfig:
    """The architecture and the scaling around it."""

    model: str = "gru"
    """Registered name of the architecture, or a simple baseline's, which takes no setting but those of the data."""
    params: dict[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the architecture; missing ones take its defaults."""
    log: bool = True
    """Work on the log scale."""
    unit: str = "auto"
    """Unit of the log scale of a load series: request, the size of one; auto, a wider one where that suits better."""
    center: bool = True
    """Subtract each window's own mean level."""
    calendar: str = "auto"
    """Cycles given as features: auto (day and week, each when the clock is known and the training part of a load
    series spans it twice), none, day, week or day+week."""
    anchor: bool = True
    """A model of single requests starts from the empirical quantiles of its context."""
    recent: int = 0
    """The architecture sees this many of the last steps; scaling and anchor see all. 0 for all."""
    stateful: bool = False
    """An lstm or gru whose state a stream carries from one step to the next, in O(1): see training/stateful.py."""
    calibrate: bool = True
    """Correct the quantiles by their errors on validation; not after `refit`, whose model has learnt from them."""

    def __post_init__(self) -> None:
        """Check every field; parameters are checked when the network is built."""
        if not self.is_baseline:
            model_class(self.model)
        _check("recent", self.recent == 0 or 2 <= self.recent <= 10_000, "0 for all, or 2 to 10000 steps", self.recent)
        _check("unit", self.unit in _UNITS, f"one of {', '.join(_UNITS)}", self.unit)
        if self.stateful:
            _check("stateful", self.model in _STATEFUL, f"a model of {', '.join(_STATEFUL)}", self.model)
            _check("recent", self.recent == 0, "0 with stateful, which sees every step once", self.recent)
            _check("center", self.center, "true with stateful", str(self.center).lower())
        _check("calendar", self.calendar in _CALENDARS, f"one of {', '.join(_CALENDARS)}", self.calendar)

    @property
    def is_baseline(self) -> bool:
        """Whether it is tuned, not trained."""
        return self.model in BASELINES


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How the weights are found."""

    epochs: int = 30
    """Most passes over the training windows."""
    batch_size: int = 128
    """Windows per step."""
    learning_rate: float = 0.002
    """Peak of the learning rate; 5 % warm-up, then cosine decay to zero."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    patience: int = 8
    """Stop after this many epochs without a better validation score."""
    by_size: bool = True
    """A window of a load series counts by its level, as it does in wQL; false where the score is logarithmic."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    seed: int = 0
    """Seed of weights, shuffling and dropout."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: str = "fp32"
    """Of the architecture's matrix products: fp32, bf16, fp16, or amp, the 16-bit type that the device is good at."""
    compile: bool = False
    """Let torch.compile make the architecture's code; goes on without it where there is no compiler."""
    micro_batch: int = 0
    """Windows of a batch at a time on each device, less memory for the same result; 0 for the whole batch, halved
    where memory runs out."""
    checkpoint_s: float = 600.0
    """Seconds between two checkpoints within an epoch; there is one after every epoch anyway."""
    refit: bool = False
    """At the end, train again on train and validation together, for as many epochs as validation found best."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, the same weights, slower."""
    start: str | None = None
    """sha256 of the weights that training begins with; None for random ones. Set by `--from`, not by `--set`."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}", self.precision)
        _check("epochs", self.epochs >= 1, "at least 1", self.epochs)
        _check("batch_size", self.batch_size >= 1, "at least 1", self.batch_size)
        _check("micro_batch", self.micro_batch >= 0, "0 for the whole batch, or at least 1", self.micro_batch)
        _check("checkpoint_s", 0 <= self.checkpoint_s < 1e9, "0 to 1e9 seconds", self.checkpoint_s)
        _check("learning_rate", 0 < self.learning_rate < 10, "a number in (0, 10)", self.learning_rate)
        _check("weight_decay", 0 <= self.weight_decay < 100, "a number in [0, 100)", self.weight_decay)
        _check("patience", self.patience >= 1, "at least 1", self.patience)
        _check("clip_norm", 0 < self.clip_norm < 1e6, "a number in (0, 1e6)", self.clip_norm)
        _check("seed", 0 <= self.seed < 2**31, "0 to 2^31 - 1", self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything a run is made of."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ForecasterConfig = field(default_factory=ForecasterConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        """Check what depends on more than one part."""
        if self.model.stateful:
            ratio, series, calendar = self.data.ratio, self.data.series, self.model.calendar
            _check("stateful", ratio == 1, "forecast steps of one bin", f"steps of {ratio} bins")
            fits = series == "load" or calendar in ("auto", "none")
            _check("calendar", fits, "none for a stateful model of single requests", calendar)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> RunConfig:
        """Read back what `to_dict` gave, after a round trip through JSON."""
        data = {**saved["data"], "levels": tuple(saved["data"]["levels"]), "split": tuple(saved["data"]["split"])}
        return cls(data=DataConfig(**data), model=ForecasterConfig(**saved["model"]), fit=FitConfig(**saved["fit"]))


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse one `--set key=value`; the value is a number, true, false, a comma-separated list or a word.

    Raises:
        ConfigError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: expected key=value, got '{text}'; for example --set hidden_size=128")
    parts = [_literal(part.strip()) for part in value.split(",")]
    return key.strip(), parts if len(parts) > 1 else parts[0]


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def build_runs(models: Sequence[str], settings: Mapping[str, Any]) -> list[RunConfig]:
    """One run per model from flat settings.

    A key is a field of `DataConfig`, `ForecasterConfig` or `FitConfig`, or a hyper-parameter; the latter goes to every
    chosen model that has it.

    Raises:
        ConfigError: an unknown model or key (the nearest is named), or a value that does not fit.
    """
    parts: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "fit": {}}
    homes = {
        f.name: (part, f.type)
        for part, cls in (("data", DataConfig), ("model", ForecasterConfig), ("fit", FitConfig))
        for f in fields(cls)
        if f.name not in ("model", "params", "start")
    }
    hyper: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) or key in ("model", "models"):
            raise ConfigError(
                f"setting: expected flat keys, got '{key}'; the only tables are [[run]], and --model names models"
            )
        if key in homes:
            part, kind = homes[key]
            parts[part][key] = _convert(key, value, str(kind))
        else:
            hyper[key] = value
    known = {name: {} if name in BASELINES else model_params(name) for name in models}
    for key in hyper:
        if not any(key in params for params in known.values()):
            every = set(homes) | {name for params in known.values() for name in params}
            raise ConfigError(f"setting: expected a known key, got '{key}'; {nearest(key, every)}")
    base = RunConfig(data=DataConfig(**parts["data"]), fit=FitConfig(**parts["fit"]))
    return [
        replace(
            base,
            model=ForecasterConfig(
                model=name, params={k: v for k, v in hyper.items() if k in known[name]}, **parts["model"]
            ),
        )
        for name in models
    ]


def _convert(key: str, value: Any, kind: str) -> Any:
    if kind.startswith("tuple"):
        items = value if isinstance(value, (list, tuple)) else [value]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in items):
            return tuple(float(v) for v in items)
    elif kind in ("float", "float | None") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif type(value).__name__ == kind:
        return value
    wanted = "numbers, comma-separated" if kind.startswith("tuple") else kind
    raise ConfigError(f"{key}: expected {wanted}, got {value!r}; correct it")
