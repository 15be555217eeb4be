"""Trajectories of an equation, as files: random initial states, solved, with their provenance.

A sample depends on (equation, parameters, seed, split, index) alone: the same in any order, in any
number of processes, after any interruption. A dataset is stated by a *recipe*, a TOML file that names the
equation, its parameters, and per split the seed, the number of samples and the times.
"""

from pdeforecast.generation.provenance import provenance_of
from pdeforecast.generation.recipes import Recipe, Split, load_recipe
from pdeforecast.generation.samples import Progress, Trajectory, assemble, generate
from pdeforecast.generation.solving import solve_from
from pdeforecast.generation.writing import write, write_recipe

__all__ = [
    "Progress",
    "Recipe",
    "Split",
    "Trajectory",
    "assemble",
    "generate",
    "load_recipe",
    "provenance_of",
    "solve_from",
    "write",
    "write_recipe",
]
