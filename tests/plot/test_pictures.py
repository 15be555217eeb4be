"""Pictures show what the Datasets hold: the right panels, one scale for what is compared, whole files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from pdeforecast import metrics, plot, trajectory
from pdeforecast.errors import DataError, UsageError
from pdeforecast.geometry import PeriodicPlane

PLANE = PeriodicPlane()


def dataset(values: torch.Tensor, times: list[float], name: str, unit: str = "1") -> xr.Dataset:
    axes = trajectory.default_axes(PLANE, {"y": values.shape[-2], "x": values.shape[-1]})
    made = trajectory.to_dataset(values[..., None], PLANE, {"vorticity": unit}, axes, times, name, "hours")
    return made.assign_coords(sample=range(len(values)))


def pair(leads: int = 7, noise: float = 0.1) -> tuple[xr.Dataset, xr.Dataset]:
    """A forecast and its truth, which starts at time 5."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(3, leads, 8, 6, generator=generator, dtype=torch.float64)
    forecast = truth + noise * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    times = [float(i) for i in range(leads)]
    return dataset(forecast, times, "lead_time", "s-1"), dataset(truth, [5 + t for t in times], "time", "s-1")


def loose(ds: xr.Dataset, count: int = 9) -> xr.Dataset:
    chosen = np.random.default_rng(0).permutation(48)[:count]
    return ds.stack(point=("y", "x")).reset_index("point").isel(point=chosen)


def maps(figure: Figure) -> list:
    """Images and coloured dots, row by row, without those of the colour bars."""
    drawn = [c for axes in figure.axes if axes.get_label() != "<colorbar>" for c in axes.collections]
    return [c for c in drawn if c.get_array() is not None and isinstance(c, QuadMesh | PathCollection)]


# --- what is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize(("leads", "columns"), [(1, 1), (2, 2), (5, 5), (7, 5)])
def test_a_column_for_a_few_lead_times_and_a_row_for_each_field(leads: int, columns: int) -> None:
    forecast, truth = pair(leads)
    assert len(maps(plot.forecast(forecast))) == columns
    assert len(plot.forecast(forecast).axes) == columns + 1 + 1
    assert len(maps(plot.forecast(forecast, truth))) == 3 * columns
    assert len(plot.forecast(forecast, truth).axes) == 3 * columns + 2 + 2


def words(figure: Figure) -> list[str]:
    """All that is written beside and between panels."""
    return [text.get_text() for text in figure.texts]


def test_the_first_and_the_last_lead_time_are_shown_with_their_unit_in_any_order() -> None:
    forecast, truth = pair()
    said = words(plot.forecast(forecast.isel(lead_time=[4, 0, 2]), truth))
    moments = [text for text in said if text.startswith("lead time")]
    assert moments == ["lead time 0 hours", "lead time 2 hours", "lead time 4 hours"]
    assert [text for text in said if text in ("truth", "forecast", "error")] == ["truth", "forecast", "error"]


def test_what_nobody_forecast_is_called_otherwise() -> None:
    forecast, truth = pair()
    solved, state = forecast.assign_attrs(equation="heat"), truth.isel(time=0)
    named = {"forecast": forecast, "trajectory": truth, "solution": solved, "state": state}
    for word, ds in named.items():
        said = {text.get_text() for text in plot.forecast(ds).findobj(Text)}
        assert said & set(named) == {word}
    said = {text.get_text() for text in plot.forecast(solved, truth).findobj(Text)}
    assert said & set(named) == {"solution"}


def test_lead_times_that_are_asked_for_are_shown() -> None:
    forecast, truth = pair()
    said = words(plot.forecast(forecast, truth, lead_times=[6, 1]))
    assert [text for text in said if text.startswith("lead")] == ["lead time 6 hours", "lead time 1 hours"]
    with pytest.raises(UsageError, match=r"came 1\.5\.\nType `--lead-time 1`, or lead_time=1;"):
        plot.forecast(forecast, truth, lead_times=[1.5])


def test_the_last_of_many_lead_times_is_told_and_the_nearest_can_be_typed() -> None:
    many = pair(20)[0].assign_coords(lead_time=np.arange(20) / 3)
    with pytest.raises(UsageError, match=r"\(0, 0\.333333, .*, …, 5\.66667, 6, 6\.33333\); came 7\."):
        plot.forecast(many, lead_times=[7.0])
    with pytest.raises(UsageError, match=r"`--lead-time 0\.333333333`") as told:
        plot.forecast(many, lead_times=[0.3])
    typed = float(str(told.value).split("--lead-time ")[1].split("`")[0])
    assert len(maps(plot.forecast(many, lead_times=[typed]))) == 1


def test_every_axis_has_its_unit() -> None:
    figure = plot.forecast(*pair())
    labels = {label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label}
    assert labels == {
        "x (–)",
        "y (–)",
        "vorticity (s⁻¹)",
        "error (s⁻¹)",
        "lead time (hours)",
        "relative $L_2$ error (–)",
        "wave number (waves per period), at lead time 6 hours",
        "power (s⁻²)",
    }


def test_images_hold_the_fields_of_the_sample_and_errors_their_difference() -> None:
    forecast, truth = pair(2)
    images = [np.asarray(image.get_array()) for image in maps(plot.forecast(forecast, truth, sample=2))]
    f, t = forecast["vorticity"].values[2], truth["vorticity"].values[2]
    for image, field in zip(images, [*t, *f, *(f - t)], strict=True):
        np.testing.assert_allclose(image, field, atol=1e-12)


def test_a_picture_does_not_see_the_layout_of_its_files() -> None:
    forecast, truth = pair(2)
    turned = forecast.transpose("x", "lead_time", "y", "sample").isel(y=slice(None, None, -1))
    for a, b in zip(maps(plot.forecast(forecast, truth)), maps(plot.forecast(turned, truth)), strict=True):
        np.testing.assert_array_equal(a.get_array(), b.get_array())


def test_forecast_and_truth_share_a_scale_symmetric_about_zero() -> None:
    forecast, truth = pair(3)
    limits = [image.get_clim() for image in maps(plot.forecast(10 * forecast, truth))]
    assert len(set(limits[:6])) == 1 and limits[0][0] == -limits[0][1]
    assert limits[0][1] == pytest.approx(float(abs(truth["vorticity"].isel(sample=0)).max()))
    assert len(set(limits[6:])) == 1 and limits[6][0] == -limits[6][1] != limits[0][0]


def test_an_unsigned_field_fills_its_scale() -> None:
    forecast = np.exp(pair(2)[0].isel(sample=[0])).assign_attrs(geometry="periodic_plane")
    low, high = maps(plot.forecast(forecast))[0].get_clim()
    values = forecast["vorticity"].values
    assert (low, high) == pytest.approx((values.min(), values.max()))


def test_loose_points_are_dots_in_their_places() -> None:
    forecast, truth = pair(2)
    sensors = loose(forecast)
    for figure in (
        plot.forecast(sensors),
        plot.forecast(sensors, truth),
        plot.forecast(forecast, loose(truth)),
    ):
        drawn = maps(figure)
        dots = drawn[2 * (len(drawn) > 2)]  # the forecast comes after the truth, if there is one
        assert isinstance(dots, PathCollection)
        shown = np.column_stack([dots.get_offsets(), dots.get_array()])
        held = np.column_stack([sensors["x"], sensors["y"], sensors["vorticity"].values[0, 0]])
        np.testing.assert_allclose(shown[np.lexsort(shown.T)], held[np.lexsort(held.T)], atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_constant_fields_are_drawn_in_the_middle_of_their_colours(value: float, tmp_path: Path) -> None:
    forecast, truth = (xr.full_like(ds.isel(sample=[0]), value) for ds in pair(1))
    for name, figure in {"alone": plot.forecast(forecast), "both": plot.forecast(forecast, truth)}.items():
        assert all(image.norm(image.get_array()).max() == 0.5 for image in maps(figure))
        assert all(image.norm(image.get_array()).min() == 0.5 for image in maps(figure))
        plot.save(figure, tmp_path / f"{name}.png")


def test_colours_part_at_zero_only_where_the_fields_change_sign() -> None:
    forecast, truth = (ds.clip(-1, 1) for ds in pair(2))
    one = 0 * truth + 1
    for made, held, signed in (
        (forecast, truth, True),
        (forecast, truth.clip(0, 1), True),
        (forecast, 0 * truth, True),
        (forecast.clip(-0.1, 1), truth.clip(-0.1, 1), False),
        (forecast.clip(0, 1), one, False),
    ):
        images = maps(plot.forecast(made.assign_attrs(forecast.attrs), held.assign_attrs(truth.attrs)))
        low, high = images[0].get_clim()
        assert images[0].get_cmap().name == images[2].get_cmap().name == ("RdBu_r" if signed else "viridis")
        assert low == -high if signed else low > -0.11
        assert images[-1].get_cmap().name == "PuOr_r" and low < high


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    forecast, truth = pair(2)
    gaps = truth.where(truth["x"] < 0.5)
    figure = plot.forecast(forecast, gaps)
    left_out = [np.ma.getmaskarray(image.get_array()) for image in (*maps(figure)[:2], *maps(figure)[4:])]
    assert all(mask[:, 3:].all() and not mask[:, :3].any() for mask in left_out)
    plot.save(figure, tmp_path / "gaps.png")


# --- error over lead time ------------------------------------------------------------------------


def lines(figure: Figure) -> dict[str, np.ndarray]:
    axes = next(axes for axes in figure.axes if "relative" in axes.get_ylabel())
    drawn = axes.lines
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in drawn}


def test_the_curve_is_the_mean_of_the_metric_and_persistence_holds_the_first_frame() -> None:
    forecast, truth = pair(4)
    ahead = forecast.isel(lead_time=slice(1, None)).assign_attrs(start_time=5.0)
    held = truth.isel(time=[0] * 4).assign_coords(time=truth["time"])
    for drawn in (plot.forecast(ahead, truth), plot.curves(truth, {"forecast": ahead})):
        curves = lines(drawn)
        mean = metrics.relative_l2(ahead, truth)["vorticity"].mean("sample").values
        np.testing.assert_allclose(curves["forecast"], mean)
        still = metrics.relative_l2(held, truth)["vorticity"].mean("sample").values
        np.testing.assert_allclose(curves["persistence"], still[1:])


# --- several forecasts ---------------------------------------------------------------------------


def test_a_triptych_has_a_row_for_each_forecast_and_marks_what_was_observed() -> None:
    (forecast, truth), (worse, _) = pair(3), pair(3, noise=0.5)
    sensors = loose(truth.isel(time=0))
    states = {"full": truth.isel(time=0), "sensors": sensors}
    figure = plot.triptych(truth, {"full": forecast, "sensors": worse}, 2.0, 1, states)
    images = maps(figure)
    assert len(images) == 6 and len(figure.axes) == 6 + 2
    assert (
        len({images[i].get_clim() for i in (0, 1, 3, 4)}) == len({images[i].get_clim() for i in (2, 5)}) == 1
    )
    np.testing.assert_allclose(images[4].get_array(), worse["vorticity"].values[1, 2], atol=1e-12)
    marks = [len(axes.collections[1].get_offsets()) for axes in figure.axes[:6] if len(axes.collections) > 1]
    assert marks == [9]


# --- bad input -----------------------------------------------------------------------------------


def test_what_is_not_there_is_not_drawn() -> None:
    forecast, truth = pair(3)
    for sample in (-1, 3):
        for given in (None, truth):
            with pytest.raises(UsageError, match=r"expected a sample from 0 to 2; came (-1|3)\.\nType"):
                plot.forecast(forecast, given, sample)
    with pytest.raises(UsageError, match=r"\(0, 1, 2\); came 9\.\nType `--lead-time 2`, or lead_time=2;"):
        plot.triptych(truth, {"a": forecast}, 9.0)
    with pytest.raises(UsageError, match="at least one forecast"):
        plot.curves(truth, {})
    with pytest.raises(DataError, match="variable to draw"):
        plot.forecast(forecast.drop_vars("vorticity"))


def test_files_of_two_geometries_are_both_named() -> None:
    forecast, truth = pair(2)
    with pytest.raises(
        DataError, match=r"drawn is on the periodic_plane, its truth on the plane\.\nGive `--tr"
    ):
        plot.forecast(forecast, truth.assign_attrs(geometry="plane"))


def test_nothing_in_common_is_told_as_match_tells_it() -> None:
    forecast, truth = pair(3)
    with pytest.raises(DataError, match="times in common"):
        plot.forecast(forecast.assign_coords(lead_time=[0.25, 0.5, 0.75]), truth)
    with pytest.raises(DataError, match="places in common"):
        plot.forecast(forecast.assign_coords(x=forecast["x"] + 0.05), truth)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "head"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")])
def test_a_file_is_whole_and_alone(tmp_path: Path, name: str, head: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    plot.save(plot.curves(pair(2)[1], {"a": pair(2)[0]}), path)
    assert path.read_bytes().startswith(head) and [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    figure = plot.forecast(pair(1)[0])
    for name in ("a.jpg", "a", "missing/a.png"):
        with pytest.raises(UsageError):
            plot.save(figure, tmp_path / name)
    with pytest.raises(UsageError, match=r"png, pdf, svg; came 'a\.jpg'\.\nName it 'a\.png'"):
        plot.save(figure, tmp_path / "a.jpg")

    def fail(path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot.save(figure, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_no_picture_touches_the_global_state() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot.forecast(*pair(2))
    assert dict(matplotlib.rcParams) == before
