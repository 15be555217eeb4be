"""What long work tells where nobody sees a terminal."""

import io
import re

import pytest

from pdeforecast import logs


def test_a_log_file_gets_lines_and_no_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for seconds in (0.0, 60.0):
        monkeypatch.setattr("sys.stderr", file := io.StringIO())
        monkeypatch.setattr(logs, "_MINUTE", seconds)
        with logs.bar(unit="case") as outer, logs.bar(unit="step", total=3, leave=False) as bar:
            outer.update(0)
            for phase in ("field", "dynamics"):
                bar.set_description(phase, refresh=False)
                for step in range(1, 4):
                    bar.update(step - bar.n)
        told.append(file.getvalue())
    lines = [line for line in told[0].splitlines() if "case" not in line]
    assert told[1] == "" and "\r" not in told[0] and "\x1b" not in told[0] and len(lines) >= 6
    assert all(re.match(r"(field: +|dynamics: +)?\d+%\|.*\| [0-3]/3 \[.*step.*\]$", line) for line in lines)
