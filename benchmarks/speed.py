"""How fast: encoding, rolling out, decoding and training, in CPU seconds of one thread.

    python benchmarks/speed.py --model navier-stokes
    python benchmarks/speed.py --preset paper

CPU seconds are the least of a few repetitions. Peak memory is what a fresh process, once it holds
the model and its input, needs on top. Without `--model`, times are those of an untrained `default`.

The solver stands beside the model twice: as it makes the data, and, for a trained model, as the cheapest
of coarser grids and longer steps whose T_in error (mean square over frames 0 … 9 against the data) is
at most that of the model. Without one, no error is equal, and that row is left out.

`--preset paper` measures the published sizes (4 latents × 16 contexts, 2 heads, width 128, all pairs,
3 inner steps, to second order; 8 × 2 frames × 512 points) beside published notes on the reference.
"""

import argparse
import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from accuracy import table, write
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import pdeforecast as pf
from pdeforecast.config import DynamicsConfig, ForecasterConfig, LinearFieldConfig
from pdeforecast.forecaster import Forecaster
from pdeforecast.generation import assemble, generate
from pdeforecast.latents import Latents
from pdeforecast.pdes.navier_stokes import NavierStokes
from pdeforecast.presets import PRESETS
from pdeforecast.solvers.torus import resample
from pdeforecast.training import Progress, Trajectories, train

RESULTS = Path(__file__).parent / "results"
PDE = NavierStokes()
FRAMES = [float(t) for t in range(20)]
T_IN = 10
Row = dict[str, object]


def config(preset: str) -> ForecasterConfig:
    """The Navier–Stokes model of a preset."""
    chosen = PRESETS[preset]
    return ForecasterConfig(
        PDE.geometry, {"vorticity": "1"}, {"forcing": "1"}, field=chosen.field, dynamics=chosen.dynamics
    )


def built(name: str | None) -> Forecaster:
    """The model `name`, or an untrained `default`."""
    return pf.load(name) if name else Forecaster(config("default")).prepare()


def grid(n: int) -> Tensor:
    """The points (n², 2) of a regular grid, row by row."""
    axis = torch.arange(n, dtype=torch.float64) / n
    return torch.cartesian_prod(axis, axis).flip(-1)


def states(count: int) -> Tensor:
    """Smooth random fields (count, 64², 1)."""
    noise = torch.fft.rfft2(torch.randn(count, 64, 64, generator=torch.Generator().manual_seed(0)))
    k = torch.fft.fftfreq(64, 1 / 64).square()[:, None] + torch.fft.rfftfreq(64, 1 / 64).square()
    return torch.fft.irfft2(noise * torch.exp(-k / 50)).reshape(count, -1, 1)


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """CPU seconds of `work`: the least of a few repetitions after a first one."""
    work()
    return min(once(work) for _ in range(repeat))


def once(work: Callable[[], object]) -> float:
    """CPU seconds of `work` as it is called for the first time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_fresh_process(task: Callable[..., object], *arguments: object) -> object:
    """What `task` returns in a process of its own, with one thread."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
        return pool.submit(task, *arguments).result()


def peak_above(work: Callable[[], object]) -> float:
    """MiB by which `work` raises the peak memory of this process above what it holds (Linux, glibc).

    Not `ru_maxrss`, which remembers what building the model needed for a moment; and what that has
    freed is given back to the system first, lest `work` should reuse it unseen.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    work()
    return _peak() - before


def _peak() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024


class Unnamed(nullcontext):
    """Counts FLOP without telling modules apart, whose hooks do not work under `torch.func`."""

    parents = ("Global",)


def row(what: str, case: str, cpu: float, points: int = 0, peak: float | None = None) -> Row:
    """A row of the table."""
    return {
        "what": what,
        "case": case,
        "cpu_seconds": cpu,
        "points_per_second": points / cpu if points else "",
        "peak_mib": "" if peak is None else peak,
    }


@torch.no_grad()
def decoding_memory(name: str | None, n: int) -> float:
    """MiB that decoding an n² frame needs."""
    model = built(name)
    latents, points = model.encode(grid(8), torch.zeros(1, 64, 1)), grid(n)
    return peak_above(lambda: model.decode(points, [latents]))


def encoding(model: Forecaster) -> list[Row]:
    """Encoding of 64² states, observed in part."""
    rows = []
    for share in (1.0, 0.5, 0.05):
        chosen = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(1))[: round(share * 64 * 64)]
        points, values = grid(64)[chosen], states(2)[:, chosen]
        model.encode(points[:8], values[:, :8])
        first = once(lambda x=points, y=values: model.encode(x, y[:1]))
        further = seconds(lambda x=points, y=values: model.encode(x, y[1:]))
        rows.append(row("encode", f"{share:.0%} of 64², first state", first))
        rows.append(row("encode", f"{share:.0%} of 64², a further state at the same points", further))
    return rows


def rolling(model: Forecaster) -> list[Row]:
    """Rollouts of 20 frames."""
    rows = []
    around = model.surroundings(grid(64), states(1).double())
    for count in (1, 32):
        z = model.encode(grid(64), states(count))
        cpu = seconds(lambda z=z: model.rollout(z, around, FRAMES), 2)
        rows.append(row("rollout", f"20 frames from {count} state{'s' * (count > 1)}", cpu))
    return rows


def decoding(model: Forecaster, name: str | None) -> list[Row]:
    """Decoding of one frame and of many."""
    z = model.encode(grid(64), states(1))
    rows = []
    for n in (64, 256, 512):
        cpu = seconds(lambda n=n: model.decode(grid(n), [z]))
        peak = in_fresh_process(decoding_memory, name, n)
        rows.append(row("decode", f"{n}²", cpu, n * n, float(peak)))
    cpu = seconds(lambda: model.decode(grid(64), [z] * 20))
    rows.append(row("decode", "20 frames of 64²", cpu, 20 * 64 * 64))
    for exponent in (3, 4, 5, 6):
        points = torch.rand(10**exponent, 2, dtype=torch.float64)
        decode = partial(model.decode, points, [z])
        cpu = once(decode) if exponent == 6 else seconds(decode)
        rows.append(row("decode", f"10^{exponent} random points", cpu, 10**exponent))
    return rows


def growth() -> list[Row]:
    """What more latents cost, on untrained fields: 9 neighbours of 16 … 1024."""
    decoded, encoded = [], []
    for n in (16, 64, 256, 1024):
        wide = replace(
            config("default"), field=LinearFieldConfig(latents=n), dynamics=DynamicsConfig(hidden=8)
        )
        model = Forecaster(wide)
        z = Latents(model.lattice(), torch.zeros(1, n, model.field.context_dim), model.windows())
        cases = {"64²": grid(64), "512²": grid(512), "10^5 random points": torch.rand(10**5, 2)}
        for case, points in cases.items():
            cpu = seconds(lambda m=model, x=points, z=z: m.field(x, z))
            decoded.append(row("growth", f"decode {case}, {n} latents", cpu, len(points)))
        # Full covariances of 1024 latents would not say more.
        if n <= 256:
            cpu = once(lambda m=model: m.encode(grid(64), states(1)))
            encoded.append(row("growth", f"encode all of 64², first state, {n} latents", cpu))
    return decoded + encoded


def training(model: Forecaster) -> list[Row]:
    """Optimiser steps of the dynamics phase, at its first and its last horizon."""
    rows = []
    times, points = tuple(FRAMES[:T_IN]), grid(64)
    values = states(4 * T_IN).view(4, T_IN, -1, 1)
    alike = torch.ones(len(points))
    data = Trajectories(times, points, alike, values, points, alike, states(1).double())
    for horizon in (1, 8):
        settings = replace(
            PRESETS["default"].training,
            field_steps=1, dynamics_steps=6, joint_steps=0, copies=1, horizon=horizon,
        )  # fmt: skip
        marks = [
            time.process_time()
            for report in train(Progress(Forecaster(model.config), settings), data)
            if report.phase == "dynamics"
        ]
        count = settings.trajectories(horizon)
        rows.append(
            row("training step", f"dynamics, {count} states × {horizon} frames", marks[-1] - marks[-2])
        )
    return rows


def mean_square(forecast: Tensor, truth: Tensor) -> float:
    """The T_in error of trajectories (sample, time, y, x)."""
    return float((forecast - truth)[:, :T_IN].square().mean())


def solved(truth: Tensor, forcing: Tensor, n: int, step: float) -> tuple[float, float]:
    """CPU seconds of the solver for 20 frames of one state, on n² points, and its T_in error."""
    solver = replace(PDE, step=step)
    start = {"vorticity": resample(truth[:, 0], n), "forcing": resample(forcing, n)}
    frames = [state["vorticity"] for state in solver.solve(start, FRAMES)]
    error = mean_square(resample(torch.stack(frames, dim=1), truth.shape[-1]), truth)
    one = {**start, "vorticity": start["vorticity"][0]}
    return seconds(lambda: list(solver.solve(one, FRAMES)), 2), error


def end_to_end(model: Forecaster, trained: bool, samples: int) -> list[Row]:
    """20 frames of 64² from a file's state, beside the solver."""
    ds = assemble(PDE, list(generate(PDE, samples, 1000, "test", 1)), 1000, "test")
    truth = torch.from_numpy(ds["vorticity"].transpose("sample", "time", "y", "x").values).double()
    forcing = torch.from_numpy(ds["forcing"].transpose("y", "x").values).double()
    state = ds.isel(time=0)
    first = once(lambda: model.forecast(state.isel(sample=[0]), FRAMES))
    again = seconds(lambda: model.forecast(state.isel(sample=[0]), FRAMES), 2)
    rows = [
        row("20 frames of 64²", "forecast, first", first),
        row("20 frames of 64²", "forecast, a further one", again),
        row("20 frames of 64²", f"solver, 64², step {PDE.step:g}", solved(truth, forcing, 64, PDE.step)[0]),
    ]
    if trained:
        values = model.forecast(state, FRAMES)["vorticity"].transpose("sample", "lead_time", "y", "x").values
        bar = mean_square(torch.from_numpy(values).double(), truth)
        rows[1]["case"] = f"forecast, a further one (T_in error {bar:.1e})"
        tried = {
            (n, step): solved(truth, forcing, n, step)
            for n, step in product((24, 32, 48, 64), (0.05, 0.1, 0.2))
        }
        good = {key: found for key, found in tried.items() if found[1] <= bar}
        if good:
            (n, step), (cpu, error) = min(good.items(), key=lambda item: item[1][0])
            rows.append(
                row("20 frames of 64²", f"solver at equal error, {n}², step {step:g} ({error:.1e})", cpu)
            )
    return rows


def paper(part: str, count: bool) -> tuple[float, float, float]:
    """CPU seconds and peak MiB of a part of the work at the published sizes; or, instead, its GFLOP."""
    torch.manual_seed(0)
    model = Forecaster(config("paper"))
    points, values = grid(64), states(16)
    some = torch.randperm(len(points))[:512]
    model.encoder.train("step" in part)
    latents = model.encode(points[:8], values[:, :8]).map(Tensor.detach)
    one = Latents(latents.poses[:1], latents.contexts[:1], latents.windows)
    around = model.surroundings(points, states(1).double())

    def field_step() -> None:
        z = model.encode(points[some].float(), values[:, some])
        (model.field(points[some].float(), z) - values[:, some]).square().mean().backward()

    def dynamics_step() -> None:
        eight = Latents(latents.poses[:8], latents.contexts[:8], latents.windows)
        path = model.rollout(eight, around, FRAMES[1:T_IN])
        fields = torch.stack([model.field(points[some].float(), z) for z in path])
        (fields - values[:8, some]).square().mean().backward()

    work: dict[str, Callable[[], object]] = {
        "field step": field_step,
        "dynamics step": dynamics_step,
        "encode 64²": lambda: model.encode(points, values[:1]),
        "decode 64²": lambda: model.decode(points, [one]),
    }
    with torch.set_grad_enabled("step" in part):
        if count:
            counter = FlopCounterMode(display=False)
            counter.mod_tracker = Unnamed()
            with counter:
                work[part]()
            return 0.0, 0.0, counter.get_total_flops() / 1e9
        peak = peak_above(work[part])
        return once(work[part]), peak, 0.0


NOTES = {
    "field step": "15.1 s, 6.8 GB (its training step: 433 GFLOP, 5.2 GB)",
    "dynamics step": "6.3 s, 5.3 GB",
    "encode 64²": "0.23 s",
    "decode 64²": "0.24 s",
}
"""The reference's cost, as published notes give it."""


def paper_rows() -> list[Row]:
    """The work at the published sizes, beside the reference."""
    rows = []
    for part, note in NOTES.items():
        cpu, peak, _ = in_fresh_process(paper, part, False)
        flops = in_fresh_process(paper, part, True)[2]
        rows.append(
            {
                "part": part,
                "cpu_seconds": cpu,
                "gflop": flops,
                "peak_gb": peak * 2**20 / 1e9,
                "reference (published notes)": note,
            }
        )
    return rows


def main() -> None:
    """Measure; print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="a shipped model or a path")
    parser.add_argument("--preset", choices=["paper"], help="measure the published sizes instead")
    parser.add_argument("--samples", type=int, default=2, help="flows by which errors are compared")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.preset:
        rows = paper_rows()
        write(rows, RESULTS / "speed_paper.csv")
    else:
        with torch.no_grad():
            model = built(arguments.model)
            rows = encoding(model) + rolling(model) + decoding(model, arguments.model) + growth()
            rows += end_to_end(model, bool(arguments.model), arguments.samples)
        rows += training(model)
        write(rows, RESULTS / "speed.csv")
    print(table(rows))


if __name__ == "__main__":
    main()
