"""Which operator an exporter does not know, and which module of the model runs it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from export.tracing import tracing

_NAMED = re.compile(r"\b[a-z]\w*(?:::|\.)(\w+)")
_FAMILY = re.compile(r"^(_|special_|bessel_)+")  # `special_i0` is `i0` to one exporter and `bessel_i0` to the other


def named_operator(model: nn.Module, example: Mapping[str, torch.Tensor], reason: str) -> str:
    """An exporter's complaint, behind the operator that it names and the modules that run it, where they can be found.

    Args:
        model: the model that cannot be exported.
        example: input name -> tensor, in the order of forward's arguments.
        reason: the complaint, one line.
    """
    blamed = {_stem(name) for name in _NAMED.findall(reason)}
    places: dict[str, list[str]] = {}
    for operator, place in _operators(model, example):
        if _stem(operator) in blamed and place not in places.setdefault(operator, []):
            places[operator].append(place)
    return "".join(f"{operator} in {' and '.join(where)}: " for operator, where in places.items()) + reason


def _operators(model: nn.Module, example: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Every operator, beside the module in whose own forward it runs; none where tracing fails too."""
    try:
        with tracing(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the export itself has warned of what it saw
            traced = torch.jit.trace(model, tuple(example.values()), check_trace=False)
    except Exception:  # the exporter's complaint stands as it is
        return
    for path, module in traced.named_modules():
        with suppress(RuntimeError):  # a container has no forward
            for kind in _kinds(module.graph.nodes()):
                yield kind, f"{path} ({module.original_name})" if path else module.original_name


def _kinds(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        yield node.kind()
        for block in node.blocks():
            yield from _kinds(block.nodes())


def _stem(operator: str) -> str:
    return _FAMILY.sub("", operator.rpartition("::")[2])
