"""`bench forecast`: how far forecasts are from the truth, within and beyond the time that was learned.

Given is the whole state at frame 0. For every variable:

    lead 0          the reconstruction, apart from all else
    paper, MSE      plain means of squares in raw units, frame 0 included: comparable with the papers
    relative L2     weighted by area or volume, frame 0 left out; mean and median over samples

over t_in, the first ten frames, and t_out, those after them; per seed, and over seeds with their spread.
"""

from collections.abc import Sequence
from pathlib import Path

from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import by_lead_time, picture, save
from pdeforecast.bench.scores import scored
from pdeforecast.bench.study import Study, check_samples, leads_of, state_of
from pdeforecast.bench.table import Case, Row, groups, markdown, over_seeds

NUMBERS = (
    "lead_0_mse",
    "paper_t_in",
    "paper_t_out",
    "lead_0_l2",
    "t_in_l2",
    "t_in_l2_median",
    "t_out_l2",
    "t_out_l2_median",
)
KEYS = ("equation", "variable", "method")


def cases(study: Study) -> list[Case]:
    """One for every method and seed."""

    def measure(method: Method, seed: int) -> list[Row]:
        truth = study.truth(seed)
        check_samples(truth)
        state = state_of(truth)
        return scored(lambda: method.forecast(state, leads_of(truth), like=state), truth)

    return study.cases(measure)


def page(rows: Sequence[Row]) -> str:
    """The table, mean and spread over seeds."""
    return markdown(over_seeds(rows, KEYS, NUMBERS), [*KEYS, "seeds", *NUMBERS])


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Error against lead time, a picture for each equation and variable."""
    made = []
    for group in groups(rows, ("equation", "variable")):
        path = picture(folder, "forecast", group[0]["equation"], group[0]["variable"])
        figure = by_lead_time(group, "l2_by_lead", "method", "relative $L_2$ error")
        if figure is not None:
            save(figure, path)
            made.append(path)
    return made
