"""What an equation promises: its variables, its random initial states, and its solver.

A PDE is a frozen dataclass: its fields are the physical and numerical parameters, in documented
units, and nothing else. It knows nothing of networks, files or training.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.errors import UsageError

State = Mapping[str, Tensor]
"""Variables by name, each of shape (…, *grid): the evolving ones and the static ones."""


@dataclass(frozen=True)
class PDE(ABC):
    """An equation on a domain, with the distribution of its initial states.

    Class attributes:
        name: as typed on the command line.
        geometry: the name of the domain's geometry.
        variables: the evolving fields.
        statics: known fields that do not change in time.
        units: of every field.
    """

    name: ClassVar[str]
    geometry: ClassVar[str]
    variables: ClassVar[tuple[str, ...]]
    statics: ClassVar[tuple[str, ...]]
    units: ClassVar[Mapping[str, str]]

    frames: int
    interval: float

    def __post_init__(self) -> None:
        """Refuse parameters that no solver could use; equations add their own by `at_least`."""
        self.at_least("frames", 1)
        self.above_zero("interval")

    def at_least(self, name: str, least: float) -> None:
        """Raise a `UsageError` unless the parameter `name` is `least` or more."""
        if not getattr(self, name) >= least:
            raise UsageError(
                f"expected {name} ≥ {least:g}; came {getattr(self, name)}.", f"Type `--set {name}={least:g}`."
            )

    def above_zero(self, name: str) -> None:
        """Raise a `UsageError` unless the parameter `name` is positive."""
        if not getattr(self, name) > 0:
            default = next(f.default for f in fields(self) if f.name == name)
            raise UsageError(
                f"expected {name} > 0; came {getattr(self, name)}.", f"Type `--set {name}={default}`."
            )

    def times(self) -> list[float]:
        return [self.interval * i for i in range(self.frames)]

    @abstractmethod
    def coordinates(self) -> dict[str, Tensor]:
        """The grid's axes, in the order of the fields' last dimensions."""

    @abstractmethod
    def initial(self, seed: int, split: str, index: int) -> State:
        """The state at t = 0 of one sample; the same for the same arguments, in any order."""

    @abstractmethod
    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """The state at each of the non-decreasing `times` after `state`.

        Args:
            axes: the nodes of the state's grid, in the order of the fields' last dimensions; those of
                `coordinates()` if they are not given.

        Raises:
            DataError: if the domain's transform cannot take these nodes in.
        """


def generator(*key: object) -> torch.Generator:
    """A random generator whose stream depends on `key` alone, not on what was drawn before.

    Different keys give unrelated streams (the seed is 8 bytes of the SHA-256 of the key), so
    samples can be drawn in any order and splits share nothing.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
