"""Progress reaches the screen whole: no line is lost, torn or shown twice."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from flightpath.local.view import ProgressFile, ReleaseView, Screen
from tasks.progress import announce


def test_announcements_travel_through_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv("FLIGHTPATH_PROGRESS_FILE", str(path))
    file = ProgressFile(path)
    assert list(file.news()) == []
    announce("training", "epoch 1", loss=0.25)
    (seen,) = file.news()
    assert (seen.stage, seen.message, seen.shown_figures) == ("training", "epoch 1", "loss 0.25")
    assert list(file.news()) == []


def test_a_half_written_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    line = '{"time": 1.0, "stage": "data", "message": "done", "figures": {}}\n'
    path.write_text(line[:20])
    file = ProgressFile(path)
    assert list(file.news()) == []
    path.write_text(line)
    assert [news.message for news in file.news()] == ["done"]


def test_without_a_file_a_plain_line_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLIGHTPATH_PROGRESS_FILE", raising=False)
    announce("training", "epoch 1", loss=0.25, step=7)
    assert capsys.readouterr().err.split(maxsplit=1)[1] == "training     epoch 1  loss 0.25  step 7\n"


def test_a_terminal_shows_a_table_and_a_pipe_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv("FLIGHTPATH_PROGRESS_FILE", str(path))
    announce("training", "epoch 1", loss=0.25)
    announce("promotion", "us-east canary(5 %)", errors=0.0)
    for terminal in (True, False):
        output = io.StringIO()
        view = ReleaseView(name="r-1")
        with Screen(Console(file=output, force_terminal=terminal, width=120), [view]) as screen:
            for news in ProgressFile(path).news():
                screen.take(view, news)
        shown = output.getvalue()
        assert "us-east" in shown
        assert "canary(5 %)" in shown
        assert ("elapsed" in shown) is terminal


def test_the_next_stage_ends_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv("FLIGHTPATH_PROGRESS_FILE", str(path))
    announce("data", "done")
    announce("training", "epoch 1")
    view = ReleaseView(name="r-1")
    for news in ProgressFile(path).news():
        view.take(news)
    assert view.stages["data"].ended is not None
    assert view.stages["training"].ended is None
