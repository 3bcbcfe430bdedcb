"""The study's matrix: what is trained, in which order, from one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

CONTROL = "none"
"""The arm without a perceptual term."""
START = "start"


@dataclass(frozen=True)
class Run:
    """One training: an arm at a strength, with or without a GAN loss, with a seed."""

    arm: str
    strength: float
    gan: bool
    seed: int

    @property
    def name(self) -> str:
        strength = "" if self.arm == CONTROL else f"_x{self.strength:g}"
        return f"{self.arm}{strength}{'_gan' if self.gan else ''}_seed{self.seed}"


@dataclass(frozen=True)
class Matrix:
    """The YAML file: its keys are these fields, its comments say what they mean."""

    scale: int
    data: dict[str, Any]
    crop: int
    batch: int
    workers: int
    save_every: int
    network_g: dict[str, Any]
    start: dict[str, Any]
    training: dict[str, Any]
    gan: dict[str, Any]
    features: dict[str, Any]
    arms: dict[str, dict[str, Any] | None]
    seeds: list[int]
    rounds: list[dict[str, Any]]
    judges: list[str]

    def with_weights_in(self, study: Path) -> Matrix:
        """Return it with the weights of ``features``, where they are a file in the folder ``study``, found there."""
        weights = self.features.get("weights")
        if not isinstance(weights, str) or not (study / weights).is_file():
            return self
        return replace(self, features={**self.features, "weights": str(study / weights)})

    def runs(self) -> list[Run]:
        """Return every run once, round by round, and within a round seed by seed: early ends leave whole pairs."""
        found = {
            self._run(arm, each, seed): None for each in self.rounds for seed in self.seeds for arm in each["arms"]
        }
        return list(found)

    def _run(self, arm: str, each: Mapping[str, Any], seed: int) -> Run:
        strength = 0.0 if arm == CONTROL else float(each["strength"])
        return Run(arm, strength, bool(each.get("gan", False)), seed)

    def loss(self, arm: str) -> dict[str, Any]:
        """Return an arm's perceptual loss, without its weight; empty for the control."""
        keywords = self.arms[arm]
        return {} if keywords is None else {"type": "CLPLoss", **self.features, **keywords}


def read_matrix(path: Path) -> Matrix:
    """Return the matrix in a YAML file; a round without ``arms`` has all of them.

    With ``like: other.yml`` a file has the keys of another one beside it, but for those that it has itself.

    Raises:
        ValueError: if a key is missing or unknown, the control is missing, or a round names an unknown arm.
    """
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "like" in settings:
        other = path.with_name(settings.pop("like"))
        settings = {**yaml.safe_load(other.read_text(encoding="utf-8")), **settings}
    keys = {field.name for field in fields(Matrix)}
    if settings.keys() != keys:
        raise ValueError(f"{path} must have the keys {sorted(keys)}, but differs in {sorted(settings.keys() ^ keys)}.")
    arms = settings["arms"]
    if arms.get(CONTROL, {}) is not None:
        raise ValueError(f"`arms` in {path} must have the control: `{CONTROL}: ~`.")
    for each in settings["rounds"]:
        unknown = set(each.setdefault("arms", list(arms))) - arms.keys()
        if unknown:
            raise ValueError(f"`rounds` in {path} must name arms out of {list(arms)}, but got {sorted(unknown)}.")
    return Matrix(**settings)
