"""`bench efficiency`: how the error falls with the number of training trajectories.

A preset of this package's model, or another kind of `methods.KINDS`, is trained on the first 4, 16, 32, 64, …
trajectories of a file, with the same budget each, and scored on unseen states as in `bench forecast`. What is
learned in closed form has no steps that a budget could choose: the seconds that each training took are told.
Seeds choose both the unseen states and the random numbers of the training. Runs are kept, and gone on with.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pdeforecast import logs
from pdeforecast.bench import methods
from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import picture, save, trends
from pdeforecast.bench.scores import scored
from pdeforecast.bench.study import Study, card_of, leads_of, state_of
from pdeforecast.bench.table import Case, Row, groups, markdown, over_seeds
from pdeforecast.bench.training import Report
from pdeforecast.errors import UsageError, nearest
from pdeforecast.presets import PRESETS
from pdeforecast.trajectory import open_dataset

COUNTS = (4, 16)
"""The least numbers of trajectories; further ones double."""
KEYS = ("equation", "variable", "method", "trajectories")
NUMBERS = ("training_seconds", "lead_0_mse", "paper_t_in", "paper_t_out", "t_in_l2", "t_out_l2")


def cases(study: Study) -> list[Case]:
    """One for every preset or kind, seed and number of trajectories.

    Raises:
        UsageError: if there is no file to train on.
    """
    if study.train is None:
        raise UsageError("expected trajectories to train on; came none.", "Give them: `--train TRAIN.nc`.")
    with open_dataset(study.train) as ds:
        available = ds.sizes.get("sample", 1)
    made = []
    for count in counts(available):

        def measure(method: Method, seed: int, count: int = count) -> list[Row]:
            truth = study.truth(seed)
            trained = learned(method.name, study, count, seed)
            state = state_of(truth)
            rows = scored(lambda: trained.forecast(state, leads_of(truth), like=state), truth)
            return [{**row, "training_seconds": float(card_of(trained)["seconds"])} for row in rows]

        made += study.cases(measure, trajectories=count, budget=study.budget)
    return made


def counts(available: int) -> list[int]:
    """4, 16, 32, 64, … as far as there are trajectories; all of them if there are fewer than 4."""
    chosen = [count for count in COUNTS if count <= available] or [available]
    while 2 * chosen[-1] <= available and chosen[-1] >= COUNTS[-1]:
        chosen.append(2 * chosen[-1])
    return chosen


def learned(name: str, study: Study, count: int, seed: int) -> Method:
    """A preset or kind, trained on the first `count` trajectories, or gone on with.

    Raises:
        UsageError: if a baseline is given no budget.
    """
    assert study.train is not None
    ds = open_dataset(study.train)
    part = ds.isel(sample=slice(count)) if "sample" in ds.dims else ds
    # A model's card is JSON, which knows no numbers of NumPy.
    part.attrs = {name: value.item() if hasattr(value, "item") else value for name, value in ds.attrs.items()}
    folder = study.folder / "runs" / f"{name}-{count}-seed{seed}"
    own = name in PRESETS
    budget = study.budget or (PRESETS[name].budget if own else 0.0)
    if not own and not budget:
        raise UsageError(f"expected a budget for {name}; came none.", "Give one: `--budget 20m`.")
    settings = {"preset": name} if own else {}
    follow(methods.fit("model" if own else name, part, folder, budget, seed, settings, study.device))
    return methods.load(folder, study.device)


def follow(reports: Iterable[Report]) -> None:
    """Runs a training to its end, under a bar."""
    with logs.bar(unit="step", leave=False) as bar:
        for report in reports:
            bar.total = report.steps
            bar.set_postfix(loss=f"{report.loss:.3g}", refresh=False)
            bar.update(report.step - bar.n)


def check_name(name: str) -> None:
    """Refuse what is neither a preset nor a kind.

    Raises:
        UsageError: if it is neither.
    """
    known = [*PRESETS, *methods.KINDS]
    if name not in known:
        raise UsageError(
            f"expected something to train among {', '.join(known)}; came {name!r}.",
            f"Type `pdeforecast bench efficiency {nearest(name, known) or 'default'} --train TRAIN.nc`.",
        )


def page(rows: Sequence[Row]) -> str:
    """The table, mean and spread over seeds."""
    return markdown(over_seeds(rows, KEYS, NUMBERS), [*KEYS, "seeds", *NUMBERS])


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Error over t_in against the number of trajectories, a picture for each equation and variable."""
    made = []
    for group in groups(rows, ("equation", "variable")):
        figure = trends(
            group, "trajectories", "t_in_l2", ("method",), "training trajectories", "relative $L_2$, t_in"
        )
        if figure is not None:
            path = picture(folder, "efficiency", group[0]["equation"], group[0]["variable"])
            save(figure, path)
            made.append(path)
    return made
