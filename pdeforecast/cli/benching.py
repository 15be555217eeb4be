"""`bench`: suites of measurements and their pages."""

import argparse
from pathlib import Path

import torch

from pdeforecast import checkpoint
from pdeforecast.bench import report, study, suites
from pdeforecast.bench.equivariance import MOTIONS, equivariance
from pdeforecast.bench.methods import Method
from pdeforecast.cli.arguments import device_of, pairs
from pdeforecast.cli.outputs import check_folder
from pdeforecast.errors import UsageError, nearest
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.trajectory import open_dataset

LEADS = (0.0, 1.0, 5.0, 10.0, 19.0)
"""Lead times at which equivariance is printed."""


def bench(options: argparse.Namespace) -> None:
    """A suite, or the page of what suites have measured."""
    known = (*suites.SUITES, "report")
    if options.suite not in known:
        raise UsageError(
            f"expected a suite among {', '.join(known)}; came {options.suite!r}.",
            f"Type `pdeforecast bench {nearest(options.suite, known) or known[0]} MODEL`.",
        )
    check_folder(options.output)
    if options.suite == "report":
        folder = Path((options.model or ["bench"])[0])
        print("\n".join(map(str, report.write(folder, options.output or folder, options.view))))
        return
    if not (options.model or options.baselines or options.train):
        raise UsageError("expected a model; none came.", f"Type `pdeforecast bench {options.suite} MODEL`.")
    kept = options.output or options.baselines or options.train or options.data
    if options.suite == "equivariance" and not kept:
        _equivariance(options)
    else:
        _check_options(options)
        page, files = suites.go(options.suite, _study(options))
        print("\n".join([page, *(f"written: {file}" for file in files)]))


def _equivariance(options: argparse.Namespace) -> None:
    for name in options.model:
        model = checkpoint.load(name, device_of(options))
        if options.state is None:
            state = study.unseen(model, options.samples, options.seed).isel(time=0)
        else:
            state = open_dataset(options.state)
        random = torch.Generator().manual_seed(options.seed)
        motions = GEOMETRIES[model.geometry.domain].random_motion(options.motions or MOTIONS, random)
        print(equivariance(model, state, options.lead_time or LEADS, motions).markdown())


def _check_options(options: argparse.Namespace) -> None:
    """Refuse what a table would pass over.

    Raises:
        UsageError: if there is such an option, or truth that is not there.
    """
    given = {"--state": options.state, "--motions": options.motions, "--lead-time": options.lead_time}
    if came := [name for name, value in given.items() if value is not None]:
        raise UsageError(
            f"expected {came[0]} with `bench equivariance MODEL` alone, which prints and keeps nothing.",
            f"Leave out {came[0]}; tables take states and times from `--data`.",
        )
    if options.data is not None and options.data.suffix and not options.data.exists():
        raise UsageError(
            f"expected a file of truth or a folder to keep it in; {options.data} is not there.",
            "Mend `--data`, or leave it out: states are generated then.",
        )


def _study(options: argparse.Namespace) -> study.Study:
    """What a suite measures."""
    device, suite = device_of(options), suites.SUITES[options.suite]
    if suite.trains:
        methods: list[Method] = [suites.to_train(name) for name in options.model]
    else:
        train = None if suite.inside else options.train
        methods = study.contestants(options.model, options.baselines, train, device)
    return study.Study(
        methods,
        options.output or Path("bench"),
        options.seeds,
        options.samples,
        options.data,
        options.train,
        options.budget,
        pairs(options.set),
        device,
        options.jobs,
        options.command,
    )
