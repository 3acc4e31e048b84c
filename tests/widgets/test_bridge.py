"""Reports of worker threads reach the loop, the newest one wins, and drawing keeps to its share."""

from __future__ import annotations

import asyncio
import threading
import time

from qatexplorer.widgets.common.bridge import Bridge, Jobs
from tests.support.waiting import PATIENCE_S, until_on_loop


def test_callbacks_run_on_the_loop_and_the_newest_wins() -> None:
    async def main() -> list[tuple[int, bool]]:
        bridge = Bridge()
        here = threading.get_ident()
        seen: list[tuple[int, bool]] = []

        def report() -> None:
            for number in range(200):
                bridge.post("n", lambda n=number: seen.append((n, threading.get_ident() == here)))

        thread = threading.Thread(target=report)
        thread.start()
        thread.join()
        await asyncio.sleep(0.1)
        return seen

    seen = asyncio.run(main())
    assert seen[-1] == (199, True)
    assert len(seen) < 200
    assert all(on_loop for _, on_loop in seen)


def test_a_slow_view_is_drawn_less_often_and_its_last_state_in_the_end() -> None:
    async def main() -> tuple[int, list[int]]:
        bridge = Bridge()
        drawn: list[int] = []

        def draw(number: int) -> None:
            time.sleep(0.02)
            drawn.append(number)

        number = 0
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            number += 1
            bridge.post("slow", lambda n=number: draw(n), every_s=0.01)
            await asyncio.sleep(0.005)
        await until_on_loop(lambda: drawn[-1:] == [number])
        return number, drawn

    number, drawn = asyncio.run(main())
    assert 2 <= len(drawn) <= 6  # twenty milliseconds of drawing, half a second of pause
    assert drawn[-1] == number


def test_a_view_that_raises_does_not_keep_the_next_from_running() -> None:
    async def main() -> list[str]:
        bridge = Bridge()
        seen: list[str] = []
        bridge.post("bad", lambda: 1 / 0)
        bridge.post("good", lambda: seen.append("good"))
        await asyncio.sleep(0.05)
        bridge.post("bad", lambda: seen.append("again"))
        await asyncio.sleep(0.05)
        return seen

    assert asyncio.run(main()) == ["good", "again"]


def test_one_job_at_a_time_and_its_error_is_reported() -> None:
    async def main() -> list[object]:
        reported: list[object] = []
        jobs = Jobs(Bridge(), lambda: None)
        assert jobs.start(
            "first", lambda job: job.should_stop() or 7, reported.append, reported.append
        )
        assert not jobs.start("second", lambda _job: 8, reported.append, reported.append)
        jobs.wait(PATIENCE_S)
        await asyncio.sleep(0.05)
        assert jobs.start("third", lambda _job: 1 / 0, reported.append, reported.append)
        jobs.wait(PATIENCE_S)
        await asyncio.sleep(0.05)
        assert jobs.current is None
        return reported

    reported = asyncio.run(main())
    assert reported[0] == 7
    assert isinstance(reported[1], ZeroDivisionError)
