"""Training, as loops that yield a report per step.

1. *field*: the encoder learns its prior (linear field: closed form) or the field and the encoder's
   rates are meta-learned (attention field).
2. *dynamics*: on latents encoded once, in the metric of the field, with a growing horizon.
3. *joint*: through decoded frames, from any share of the points of the first frame.

Every random choice depends on (seed, phase, step) alone and the schedule on the step alone, so a
resumed run on a CPU repeats the uninterrupted one bit for bit. Of several processes (`parallel.py`) each
takes its part of a step's batch; what is in closed form each computes for itself.
"""

import math
from collections.abc import Iterator

from pdeforecast import parallel
from pdeforecast.errors import DivergedError
from pdeforecast.training.config import PHASES, Report, TrainingConfig
from pdeforecast.training.data import Trajectories, normalise
from pdeforecast.training.encoded import Encoded, elements, encode_all, motions_of_the_world
from pdeforecast.training.fields import field_phase
from pdeforecast.training.phases import dynamics_phase, joint_phase, memory_phase
from pdeforecast.training.progress import Progress

__all__ = [
    "PHASES",
    "Progress",
    "Report",
    "TrainingConfig",
    "Trajectories",
    "motions_of_the_world",
    "train",
]


def train(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """All phases from where `progress` stands; yields after every step.

    Raises:
        DivergedError: if the loss is not finite.
    """
    model = progress.model
    if progress.phase == "field" and progress.step == 0 and not progress.config.init_from:
        normalise(model, data)
    encoded: list[Encoded] = []
    for phase in PHASES[PHASES.index(progress.phase) :]:
        if progress.phase != phase:
            progress.enter(phase)
        if progress.step >= progress.config.steps(phase):
            continue
        parallel.share(model.state_dict().values())
        # A run that is resumed after the field phase must find the encoder as that phase left it.
        model.encoder.train(phase == "field")
        if phase == "field":
            reports = field_phase(progress, data)
        elif model.remembers:
            model.prepare()
            reports = memory_phase(progress, data)
        else:
            model.prepare()
            motions = elements(model, progress.config, len(data.values))
            encoded = encoded or encode_all(model, data, motions, progress.config)
            reports = (dynamics_phase if phase == "dynamics" else joint_phase)(progress, data, encoded)
        for report in reports:
            if not math.isfinite(report.loss):
                raise DivergedError(
                    f"the loss of phase {phase} left the finite numbers at step {report.step}.",
                    "Train anew, in smaller steps: `--set training.learning_rate="
                    f"{0.3 * progress.config.learning_rate:g} --set training.field_rate="
                    f"{0.3 * progress.config.field_rate:g}`.",
                )
            yield report
    progress.load_average()
    model.prepare()
