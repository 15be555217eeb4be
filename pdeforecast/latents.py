"""A state as a latent point cloud: {(pose pᵢ, context cᵢ, window σᵢ)}."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """N latents of a state, or of a batch of states.

    Attributes:
        poses: ambient coordinates, (N, pose_dim) when a whole batch shares them, or
            (batch, N, pose_dim).
        contexts: (batch, N, context_dim), plain vectors in the frames of their poses.
        windows: σᵢ (N,), the width of each latent's Gaussian window, in units of distance.
    """

    poses: Tensor
    contexts: Tensor
    windows: Tensor

    @property
    def count(self) -> int:
        return self.poses.shape[-2]

    @property
    def shared(self) -> bool:
        """Whether all states of the batch have the same poses."""
        return self.poses.ndim == 2

    def map(self, move: Callable[[Tensor], Tensor]) -> "Latents":
        """`move` applied to each of the three tensors (a device, a dtype)."""
        return Latents(move(self.poses), move(self.contexts), move(self.windows))
