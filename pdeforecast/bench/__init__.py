"""Suites of measurements on a model, each one file and one verb: `pdeforecast bench SUITE MODEL`."""
