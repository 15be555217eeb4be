"""What long work tells where nobody sees a terminal."""

import io
import re

import pytest

from pdeforecast import logs


@pytest.mark.parametrize("minute", (0.0, 60.0), ids=("long", "short"))
def test_a_log_file_gets_lines_and_of_short_work_none(minute: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", file := io.StringIO())
    monkeypatch.setattr(logs, "_MINUTE", minute)
    within = {"unit": "step", "total": 3, "mininterval": 0, "leave": False}
    with logs.bar(unit="case") as outer, logs.bar(**within) as inner:
        for phase in ("field", "dynamics"):
            outer.set_postfix_str(phase, refresh=True)
            inner.reset(3)
            inner.set_description(phase, refresh=False)
            for step in range(1, 4):
                inner.update(step - inner.n)
    told = file.getvalue()
    steps = [line for line in told.splitlines() if "case" not in line]
    assert not minute or told == ""
    assert minute or len(steps) >= 6
    assert all(re.match(r"(field: +|dynamics: +)?\d+%\|.*\| [0-3]/3 \[.*step.*\]$", line) for line in steps)
