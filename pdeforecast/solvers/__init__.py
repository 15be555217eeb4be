"""Numerical solvers, apart from physics: operators of a domain, and time stepping."""
