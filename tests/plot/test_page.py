"""The page: one file that needs nothing else, whose numbers are those of the fields."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pdeforecast import plot
from pdeforecast.errors import UsageError
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.plot import page as page_file
from pdeforecast.plot.page import UNKNOWN, decoded, encoded, page
from pdeforecast.plot.scene import scene_of

Pairs = Callable[..., tuple[xr.Dataset, xr.Dataset]]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def content(text: str) -> dict:
    found = re.search(r'<script id="content" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_what_is_encoded_is_decoded_within_half_a_step() -> None:
    random = np.random.default_rng(0)
    for values in (
        random.normal(size=(3, 50)),
        1e9 + random.random(20),
        1e-30 * random.random(20),
        np.zeros(4),
    ):
        coded = encoded(values)
        gap = np.abs(decoded(coded).reshape(values.shape) - values).max()
        rounding = 1e-12 * np.abs(values).max()
        assert gap <= 0.5 * coded["scale"] * (1 + 1e-9) + rounding
        assert coded["scale"] == pytest.approx(np.ptp(values) / (UNKNOWN - 1)) or not values.any()


def test_what_is_unknown_stays_so() -> None:
    values = np.array([1.0, np.nan, 3.0])
    np.testing.assert_array_equal(decoded(encoded(values)), values)
    assert np.isnan(decoded(encoded(np.full(3, np.nan)))).all()


def test_the_page_holds_the_fields_of_its_sample(space: Geometry, pair: Pairs) -> None:
    forecast, truth = pair(space)
    made = content(page(forecast, truth, sample=1))
    assert made["leads"] == [0.0, 0.5, 1.0] and made["clock"] == {"name": "lead time", "unit": "hours"}
    assert [variable["name"] for variable in made["variables"]] == ["u", "v"]
    for variable, unit in zip(made["variables"], ("K", "m s⁻¹"), strict=True):
        assert variable["unit"] == unit and len(variable["errors"]) == 3
        scene = scene_of(forecast, truth, variable["name"])
        for name in ("truth", "forecast"):
            coded = variable["fields"][name]
            gap = decoded(coded) - scene.fields[name][1].ravel()
            assert np.abs(gap).max() <= 0.5 * coded["scale"] * (1 + 1e-9)
        limits = {name: colours["limits"] for name, colours in variable["colours"].items()}
        assert limits["truth"] == limits["forecast"] and limits["error"][0] == -limits["error"][1]
    for coded, places in zip(made["coordinates"], scene.places.T, strict=True):
        assert np.abs(decoded(coded) - places).max() <= 0.5 * coded["scale"] * (1 + 1e-9)


def test_pixels_name_places(space: Geometry, pair: Pairs, loose: Callable, random_model: Callable) -> None:
    forecast, truth = pair(space)
    model = random_model(space, True)
    for ds, count in ((forecast, forecast.u[0, 0].size), (loose(forecast), 20)):
        made = content(page(ds, truth, model=model))
        for view in made["views"]:
            pixels = np.frombuffer(page_file.base64.b64decode(view["pixels"]), "<i4")
            assert pixels.size == view["width"] * view["height"]
            assert pixels.min() >= -1 and pixels.max() < count
            assert len(view["poses"]) == 3
        assert len(np.unique(pixels)) > 2
    chart = content(page(forecast))["views"][-1]
    if len(space.coordinates) == 2:
        assert [chart["height"], chart["width"]] == list(forecast.u.shape[-2:])
    if space.name in ("periodic_plane", "plane", "cylinder"):
        nodes = np.frombuffer(page_file.base64.b64decode(chart["pixels"]), "<i4").reshape(
            forecast.u.shape[-2:]
        )
        np.testing.assert_array_equal(nodes.ravel(), np.arange(nodes.size))


def test_nothing_is_asked_of_the_network(pair: Pairs) -> None:
    text = page(*pair(GEOMETRIES["sphere"]))
    program = text.replace("http://www.w3.org/2000/svg", "")  # the name of a kind of element
    assert not re.search(
        r"https?:|//\w+\.\w|@import|url\(|<link|src=|fetch\(|XMLHttp|WebSocket|import\(", program
    )
    assert "default-src 'none'" in text


def test_names_cannot_break_out(pair: Pairs) -> None:
    forecast = pair(GEOMETRIES["plane"])[0].rename(u="</script><b>&")
    text = page(forecast)
    assert text.count("</script>") == 2 and content(text)["variables"][0]["name"] == "</script><b>&"


def test_what_is_not_there_or_too_large_is_refused(pair: Pairs, monkeypatch) -> None:
    forecast, truth = pair(GEOMETRIES["plane"])
    with pytest.raises(UsageError, match="a sample from 0 to 1; came 2"):
        page(forecast, truth, sample=2)
    with pytest.raises(UsageError, match=r"a variable among u, v; came 'w'\.\nType `--variable u`"):
        page(forecast, truth, variable="w")
    monkeypatch.setattr(page_file, "_LARGEST", 100)
    with pytest.raises(UsageError, match=r"these values take .*\n.*-o NAME\.mp4"):
        page(forecast)


# --- in a browser --------------------------------------------------------------------------------

_DRIVER = """
<script>
const found = { problems, panels: panels.length, start: $("readout").textContent };
const sum = (numbers) => numbers.reduce((sum, x, i) => (sum + x * (i % 97)) % 1e9, 0);
const hash = () => panels.map(({ context, view }) =>
  sum(context.getImageData(0, 0, view.width, view.height).data));
const press = (target, key) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
found.truth = Array.from(fields.truth.slice(0, 5));
found.error = Array.from(fields.error.slice(0, 5));
found.first = hash();
$("time").value = 2; $("time").dispatchEvent(new Event("input"));
found.last = hash(); found.now = $("now").textContent;
const box = panels[0].box, edge = box.getBoundingClientRect();
const at = (x, y) =>
  ({ clientX: edge.left + x * edge.width, clientY: edge.top + y * edge.height, pointerType: "mouse" });
box.dispatchEvent(new PointerEvent("pointermove", at(.01, .99)));
found.corner = $("readout").textContent;
found.markers = panels.filter((panel) => panel.marker.style.display === "block").length;
box.dispatchEvent(new PointerEvent("pointerleave", at(.01, .99)));
found.left = $("readout").textContent;
box.focus();
const before = $("readout").textContent;
press(box, "ArrowRight");
found.moved = $("readout").textContent !== before;
$("variable").value = "v"; $("variable").dispatchEvent(new Event("change"));
found.title = document.title;
found.focusable = document.querySelectorAll("button, select, input, [tabindex='0']").length;
found.unnamed = document.querySelectorAll("[role=img]:not([aria-label])").length;
document.body.style.width = "340px";
found.wide = document.body.scrollWidth;
found.fetched = performance.getEntriesByType("resource").length;
frame = 0; show();
press(document.body, " ");
found.playing = $("play").textContent;
setTimeout(() => {
  found.frame = frame;
  press(document.body, " ");
  found.paused = $("play").textContent;
  const made = document.createElement("pre");
  made.id = "found"; made.textContent = JSON.stringify(found);
  document.body.append(made);
}, 400);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
@pytest.mark.parametrize("name", ["periodic_plane", "rotating_sphere"])
def test_the_page_in_a_browser(pair: Pairs, tmp_path: Path, name: str) -> None:
    forecast, truth = pair(GEOMETRIES[name])
    plot.animate(forecast, tmp_path / "page.html", truth)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    watch = (
        "<script>const problems = []; addEventListener('error', (e) => problems.push(e.message));</script>"
    )
    driven = text.replace("<title>", f"{watch}<title>").replace("</body>", f"{_DRIVER}</body>")
    (tmp_path / "driven.html").write_text(driven, encoding="utf-8")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    shown = subprocess.run(
        [BROWSER, *switches, f"--user-data-dir={tmp_path}/profile", (tmp_path / "driven.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    answer = re.search(r'<pre id="found">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert answer is not None, shown.stderr[-2000:]
    found = json.loads(html.unescape(answer[1]))
    views = 1 if name == "periodic_plane" else 2
    assert found["problems"] == [] and found["fetched"] == 0 and found["panels"] == 3 * views
    scene, made = scene_of(forecast, truth), content(text)
    held = decoded(made["variables"][0]["fields"]["truth"])
    np.testing.assert_allclose(found["truth"], held[:5], rtol=1e-14)
    np.testing.assert_allclose(found["error"], scene.fields["error"][0, 0, :5], atol=1e-4)
    assert (
        all(a != b for a, b in zip(found["first"], found["last"], strict=True)) and found["now"] == "1 hours"
    )
    assert float(found["start"].split()[-1]) == pytest.approx(scene.errors["forecast"][0, 0], rel=1e-3)
    if views == 1:
        corner = scene.fields["truth"][0, 2, 0]
        assert found["corner"].startswith("x 0, y 0: u: truth ") and "error" in found["corner"]
        number = re.search(r"truth (\S+) K", found["corner"])
        assert number is not None and float(number[1].replace("−", "-")) == pytest.approx(corner, rel=2e-3)
        assert found["markers"] == 3
    else:
        assert found["corner"] == "nothing is known here"
    assert found["left"].startswith("relative") and found["moved"] and found["title"].startswith("v (m s⁻¹)")
    assert found["focusable"] == 3 + 3 * views and found["unnamed"] == 0 and found["wide"] <= 340
    assert (found["playing"], found["paused"], found["frame"]) == ("Pause", "Play", 1)
