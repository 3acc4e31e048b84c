"""A long call of a panel: what is seen of it, how it is stopped, and what comes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from qatexplorer.errors import InputError, StoppedError
from qatexplorer.widgets.common.bridge import Bridge, Jobs
from qatexplorer.widgets.common.long_job import Heard, LongJob
from tests.support.waiting import until


class Page:
    """Jobs, and what is reported by the page itself."""

    def __init__(self) -> None:
        self.bridge, self.reported, self.busy = Bridge(), [], []
        self.reported: list[Exception]
        self.busy: list[bool]
        self.jobs = Jobs(self.bridge, lambda: None)
        self.job = LongJob(
            self.bridge, self.start, tip="", stopping="stopping …", on_busy=self.busy.append
        )

    def start(self, name: str, work: Any, done: Any, **more: Any) -> bool:
        return self.jobs.start(name, work, done, self.reported.append, **more)

    def run(
        self, work: Callable[[Heard, Callable[[], bool]], Any], done: Any = None, **more: Any
    ) -> bool:
        words = lambda what, share, _seconds: f"{what} <{share:.0%}>"
        return self.job.run("working", work, done or (lambda _: None), words=words, **more)

    def wait(self) -> None:
        until(lambda: self.jobs.current is None)


def shown(job: LongJob) -> tuple[bool, bool]:
    return job.bar.layout.display == "", job.halt.layout.display == ""


def test_it_is_seen_while_it_goes_on() -> None:
    page, go_on, results = Page(), threading.Event(), []
    assert shown(page.job) == (False, False)

    def work(heard: Heard, _stop: Callable[[], bool]) -> int:
        heard("half", 0.5)
        assert go_on.wait(30)
        return 7

    page.job.status.html = "before"
    assert page.run(work, results.append)
    until(lambda: page.job.status.html == "half &lt;50%&gt;")
    assert page.jobs.current is not None
    assert page.jobs.current.can_stop
    assert (page.job.busy, shown(page.job), page.job.bar.value) == (True, (True, True), 0.5)
    go_on.set()
    page.wait()
    assert (results, page.job.status.html) == ([7], "")
    assert (page.job.busy, shown(page.job)) == (False, (False, False))
    assert page.busy == [True, False]


def test_another_job_goes_on_and_nothing_has_changed() -> None:
    page, go_on = Page(), threading.Event()
    page.jobs.start("other", lambda _job: go_on.wait(30), lambda _: None, page.reported.append)
    page.job.status.html = "before"
    assert not page.run(lambda *_: None)
    assert (page.job.status.html, shown(page.job)) == ("before", (False, False))
    go_on.set()
    page.wait()


@pytest.mark.parametrize("by", ["button", "page"])
@pytest.mark.parametrize("stopped", ["Stopped.", ""])
def test_it_is_stopped(by: str, stopped: str) -> None:
    page, begun = Page(), threading.Event()

    def work(heard: Heard, should_stop: Callable[[], bool]) -> None:
        begun.set()
        until(should_stop)
        heard("late", 0.9)
        raise StoppedError("the work was stopped.")

    page.run(work, stopped=stopped)
    assert begun.wait(30)
    if by == "button":
        page.job.halt.click()
    else:
        assert page.jobs.current is not None
        page.jobs.current.stop()
    page.wait()
    assert page.job.status.html == stopped
    assert len(page.reported) == (0 if stopped else 1)


def test_after_a_press_of_stop_nothing_else_is_said() -> None:
    page = Page()
    said: list[str] = []

    def work(heard: Heard, _stop: Callable[[], bool]) -> None:
        page.job.halt.click()
        heard("late", 0.9)
        said.append(page.job.status.html)

    page.run(work)
    page.wait()
    assert said == ["stopping …"]
    assert not page.job.halt.disabled  # for the next one


@pytest.mark.parametrize("error", [InputError("no."), ZeroDivisionError("no")])
def test_an_error_goes_to_the_panel_or_to_the_page(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    page, told = Page(), []

    def work(*_: Any) -> None:
        raise error

    page.run(work)
    page.wait()
    assert (page.reported, page.job.status.html, page.busy) == ([error], "", [True, False])
    with caplog.at_level(logging.ERROR):
        page.run(work, failed=told.append)
        page.wait()
    assert (page.reported, told) == ([error], [error])
    assert ("working has failed" in caplog.text) == isinstance(error, ZeroDivisionError)


def test_what_comes_of_a_forgotten_call_is_not_shown() -> None:
    page, results = Page(), []

    def work(heard: Heard, _stop: Callable[[], bool]) -> int:
        page.job.forget()
        page.job.status.html = "another session"
        heard("late", 0.9)
        return 7

    page.run(work, results.append)
    page.wait()
    assert (results, page.job.status.html) == ([], "another session")
