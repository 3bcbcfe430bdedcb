"""Devices that a person names."""

from __future__ import annotations

import pytest
import torch

from clp_basicsr.devices import chosen_device


@pytest.fixture
def two_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_nothing_said_is_the_cpu_where_there_is_no_gpu() -> None:
    assert chosen_device(None) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cpu", "xpu", "xpu:1"])
@pytest.mark.usefixtures("two_of_another_kind")
def test_what_there_is(name: str) -> None:
    assert chosen_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "kinds"), [("xpu:2", None), ("cuda", None), ("xpu", ("cpu", "cuda")), ("", None)])
@pytest.mark.usefixtures("two_of_another_kind")
def test_what_there_is_not(name: str, kinds: tuple[str, ...] | None) -> None:
    with pytest.raises(ValueError, match=r"`device` must be one of \['cpu'.* on this machine, but got"):
        chosen_device(name, kinds)
