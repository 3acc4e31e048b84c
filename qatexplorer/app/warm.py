"""Kernels that wait, warm, for the pages of the dashboard to be opened.

A fresh kernel needs seconds to import torch and to make its first page; these are over before a
page is asked for. The notebook itself is run when the page is opened, so the model's code is that
of now and the page's own environment (its address, its query) is there. Voila's own preheated
kernels run it beforehand: they would go on showing the code of the last page's time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from traitlets import Float, Int, Unicode

WARM_UP = "import qatexplorer.app.warm_up as _w; _w.warm_up(); del _w"


class WarmKernels(AsyncMappingKernelManager):
    """Voila's kernel manager, with a kernel or more that have done the slow part of a first page.

    A page takes one that waits, if there is one that lives, and a new one is started
    ``refill_delay`` seconds later, when the page has been drawn. Each page has a kernel of its own.
    """

    size = Int(1, config=True, help="How many kernels wait; 0 turns it off.")
    refill_delay = Float(6.0, config=True, help="Seconds until another waits in place of one taken")
    hand_over_s = Float(60.0, config=True, help="Seconds that a kernel has to answer a page.")
    kernel_name = Unicode("python3", config=True, help="Name of the kernelspec of those that wait.")

    def __init__(self, **kwargs: Any) -> None:
        base: Any = super()
        base.__init__(**kwargs)
        self._waiting: list[str] = []
        self._starting = 0
        self._cwd = ""
        if self.size > 0:
            IOLoop.current().add_callback(self._fill)

    async def start_kernel(  # type: ignore[override]
        self, *, kernel_id: str | None = None, path: str | None = None, **kwargs: Any
    ) -> str:
        """Hand over a kernel that waits, else start one; returns its id."""
        fits = kwargs.get("kernel_name") == self.kernel_name and kernel_id is None
        if fits and path is not None and self._absolute(path) == self._cwd:
            while self._waiting:
                warm = self._waiting.pop(0)
                IOLoop.current().call_later(self.refill_delay, self._fill)
                if await self._hand_over(warm, kwargs.get("env") or {}):
                    self.log.info("Using a warm kernel: %s", warm)
                    return warm
        base: Any = super()
        started: str = await base.start_kernel(kernel_id=kernel_id, path=path, **kwargs)
        return started

    async def shutdown_kernel(  # type: ignore[override]
        self, kernel_id: str, *args: Any, **kwargs: Any
    ) -> None:
        if kernel_id in self._waiting:
            self._waiting.remove(kernel_id)
        base: Any = super()
        await base.shutdown_kernel(kernel_id, *args, **kwargs)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        base: Any = super()
        if kernel_id not in self._waiting:  # to be idle is what these are for
            await base.cull_kernel_if_idle(kernel_id)

    async def _fill(self) -> None:
        base: Any = super()
        folder = self._folder()
        self._cwd = self._absolute(folder)
        while len(self._waiting) + self._starting < self.size:
            self._starting += 1
            try:
                arguments = [f"--IPKernelApp.exec_lines={WARM_UP}"]
                started = await base.start_kernel(
                    kernel_name=self.kernel_name,
                    path=folder,
                    env=dict(os.environ),
                    extra_arguments=arguments,
                )
            except Exception:
                self.log.warning("No kernel can be started ahead of a page", exc_info=True)
                return
            finally:
                self._starting -= 1
            self._waiting.append(started)

    def _absolute(self, path: str) -> str:
        return str(self.cwd_for_path(path))  # type: ignore[no-untyped-call]

    def _folder(self) -> str:
        """The notebook's folder as Voila names it, relative to the server's root."""
        notebook = getattr(self.parent, "notebook_path", None)
        return os.path.dirname(os.path.relpath(notebook, self.root_dir)) if notebook else ""

    async def _hand_over(self, kernel_id: str, env: Mapping[str, str]) -> bool:
        """Give the kernel the page's environment; False, and it is ended, if it does not answer."""
        # As JSON: Voila's keys are members of an Enum, and as such no Python source.
        changed = json.dumps({k: str(v) for k, v in env.items() if os.environ.get(k) != str(v)})
        code = f"import json as _j, os as _o; _o.environ.update(_j.loads({changed!r})); del _j, _o"
        try:
            kernel: Any = self.get_kernel(kernel_id)
            client = kernel.client()
            client.start_channels()
            try:
                done = client.execute(code, silent=True, store_history=False, reply=True)
                reply = await asyncio.wait_for(done, self.hand_over_s)
            finally:
                client.stop_channels()
            if reply["content"]["status"] == "ok" and await kernel.is_alive():
                return True
        except Exception:
            self.log.warning("The warm kernel %s does not answer", kernel_id, exc_info=True)
        base: Any = super()
        if kernel_id in self:
            await base.shutdown_kernel(kernel_id, now=True)
        return False
