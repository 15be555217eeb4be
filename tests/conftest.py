"""What several tests share, made once: trajectories, a trained model, and both as files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import xarray as xr
from torch import Generator, Tensor

from pdeforecast import checkpoint, generation, run, trajectory
from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, LinearFieldConfig
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES, SPACES, Geometry
from pdeforecast.pdes import NavierStokes
from pdeforecast.presets import Preset
from pdeforecast.training import TrainingConfig

FLOW = NavierStokes(resolution=32, spin_up=1, frames=4, step=0.1)
TINY = Preset(
    LinearFieldConfig(latents=16, degree=2),
    DynamicsConfig(hidden=16, step=0.5),
    TrainingConfig(field_steps=2, dynamics_steps=6, joint_steps=3, batch=2, horizon=2, copies=2),
    budget=0,
)
TINY_PAPER = Preset(
    AttentionFieldConfig(
        latents=4, context_dim=4, hidden=8, heads=2, neighbours=0, window=0.5, steps=2, fit_poses=True
    ),
    DynamicsConfig(hidden=8, moving=True, step=1.0),
    TrainingConfig(field_steps=4, dynamics_steps=4, joint_steps=3, batch=2, horizon=2, points=64, copies=1),
    budget=0,
)


def trained(folder: Path, ds: xr.Dataset, preset: Preset, geometry: str = "periodic_plane") -> Forecaster:
    progress = run.begin(folder, ds, GEOMETRIES[geometry], preset, {})
    list(run.go(progress, run.trajectories(ds, progress.model), folder, 0))
    return checkpoint.load(folder)


@pytest.fixture(params=(*SPACES, GEOMETRIES["periodic_plane_without_symmetry"]), ids=lambda g: g.name)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    """What laws of networks are held on: every space, and one without its symmetry."""
    return request.param


@pytest.fixture(params=SPACES, ids=lambda g: g.name)
def space(request: pytest.FixtureRequest) -> Geometry:
    """Every space with all of its symmetry."""
    return request.param


def lattice_motion(geometry: Geometry, count: int) -> Tensor | None:
    """A g that moves the lattice onto itself, if a pose is a place and nothing else."""
    poses = geometry.lattice(count)
    if geometry.pose_dim > geometry.dim:
        return None
    x = geometry.random_points(count, Generator().manual_seed(0))
    for g in (poses - poses[0])[1:].flip(0):
        gx, gp = geometry.act(g, x), geometry.act_pose(g, poses)
        in_group = torch.allclose(geometry.relative(gx, gp), geometry.relative(x, poses))
        if in_group and float(geometry.distance(geometry.place(gp)[:, None], poses).amin(-1).max()) < 1e-9:
            return g
    return None


_MOTIONS = {space.name: (space, lattice_motion(space, 16)) for space in SPACES}
_PERIODIC = {name: found for name, found in _MOTIONS.items() if found[1] is not None}


@pytest.fixture(params=_PERIODIC.values(), ids=_PERIODIC)
def periodic(request: pytest.FixtureRequest) -> tuple[Geometry, Tensor]:
    """A space, and a g that moves its lattice of 16 onto itself."""
    return request.param


@pytest.fixture(scope="session")
def tiny() -> Preset:
    """Small in every respect, with the linear field."""
    return TINY


@pytest.fixture(scope="session")
def tiny_paper() -> Preset:
    """The same with the attention field, Meta-SGD and moving poses."""
    return TINY_PAPER


@pytest.fixture(scope="session")
def train() -> Callable[..., Forecaster]:
    """`trained`, for tests that bring their own trajectories."""
    return trained


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def two_threads(one_thread: None) -> Iterator[None]:
    """For what users run on several."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `flow.nc` and the run `tiny`; to be read only."""
    folder = tmp_path_factory.mktemp("shared")
    generation.write(FLOW, folder / "flow.nc", 3, seed=1)
    with trajectory.open_dataset(folder / "flow.nc") as ds:
        trained(folder / "tiny", ds, TINY)
    return folder


@pytest.fixture
def flow(shared: Path) -> xr.Dataset:
    """Three short trajectories."""
    with trajectory.open_dataset(shared / "flow.nc") as ds:
        return ds.load()


@pytest.fixture
def model(shared: Path) -> Forecaster:
    return checkpoint.load(shared / "tiny")
