"""Pages stand alone, plots do not disturb each other, and numbers read well."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from mythos_export.report import figure, legend, render, svg, write_page
from mythos_export.report import page as page_module
from mythos_export.report.format import error, seconds, size

PAGE = """{% extends "base.html.j2" %}{% from "macros.html.j2" import verdict, table, plot, facts %}
{% block title %}{{ title }}{% endblock %}
{% block body %}{{ verdict("pass", "Equal.", title) }}{{ table(["case", ">error"], [[title, "1e-6"]]) }}
{{ plot(first, "one") }}{{ plot(second, "two") }}{{ facts([("a", 1)]) }}{% endblock %}"""


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({"test.html.j2": PAGE}), page_module._ENVIRONMENT.loader])
    monkeypatch.setattr(page_module._ENVIRONMENT, "loader", loader)
    return "test.html.j2"


def curve(values: list[float]) -> str:
    with figure(3, 2) as (made, axes):
        axes.plot(values, label="x < y")
        legend(made, axes)
        return svg(made, "a <curve>")


def test_a_legend_stands_above_the_data() -> None:
    with figure(5, 3) as (made, axes):
        for name in ("a rather long name", "another", "a third", "a fourth"):
            axes.plot([0, 1], [1, 1], label=name)
        legend(made, axes)
        made.canvas.draw()
        (box,) = made.legends
        assert box.get_window_extent().y0 >= axes.get_window_extent().y1


def test_a_plot_takes_its_colours_from_the_page() -> None:
    drawn = curve([1, 2])
    assert "currentColor" in drawn and "var(--plot-blue, #0072B2)" in drawn
    assert not re.search(r"(fill|stroke): #(000000|ffffff|0072b2)", drawn)
    base = page_module._ENVIRONMENT.loader.get_source(page_module._ENVIRONMENT, "base.html.j2")[0]
    assert set(re.findall(r"var\((--[\w-]+)", drawn)) <= set(re.findall(r"(--[\w-]+):", base))


def test_a_page_stands_alone_and_escapes_what_is_data(template: str, tmp_path: Path) -> None:
    plots = {"first": curve([1, 2]), "second": curve([1, 3])}
    page = write_page(tmp_path / "page.html", template, title="<b>case</b> & co", **plots).read_text()
    assert "&lt;b&gt;case&lt;/b&gt; &amp; co" in page
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)  # nothing to fetch
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(identifiers)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(identifiers)


def test_the_same_plot_is_the_same_bytes() -> None:
    assert curve([1, 2]) == curve([1, 2]) != curve([1, 3])


def test_a_field_that_is_missing_is_an_error_and_leaves_the_old_page(template: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(jinja2.UndefinedError, match="second"):
        write_page(path, template, title="t", first="")
    assert path.read_text() == "old"
    with pytest.raises(jinja2.TemplateNotFound):
        render("absent.html.j2")


def test_numbers_read_well() -> None:
    assert [seconds(s) for s in (12.345, 1.0, 0.012345, 3.2e-5, 5e-8, 0)] == [
        "12.3 s", "1.00 s", "12.3 ms", "32.0 µs", "50.0 ns", "0 s",
    ]  # fmt: skip
    assert [size(n) for n in (512, 2_300, 21_700_000, 1.5e9)] == ["512 B", "2.30 kB", "21.7 MB", "1.50 GB"]
    assert [error(e) for e in (0, 1.234e-6)] == ["0", "1.2e-06"]
