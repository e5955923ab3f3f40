"""Coordinators for a test that is not asyncio itself: they play on a thread of their own."""

import asyncio
import contextlib
import threading

from support.coordinators import Script, Troupe
from support.rest import Rest

KEY = b"0123456789abcdef0123456789abcdef"  # support.plane gives it to operators


@contextlib.contextmanager
def played(plane, operator, namespace, script=None):
    """Every job of the namespace has a coordinator that plays `script`; what one of them dies of fails the test."""
    failures, starts, stop = [], threading.Event(), []

    async def play():
        ends = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ends.set))
        starts.set()
        async with Rest(plane.kubeconfig) as api, Troupe(api, operator.url, KEY, script or Script(), namespace) as troupe:
            await ends.wait()
            troupe.check()
        await asyncio.sleep(0.25)  # aiohttp says so: TLS connections close behind their session, and cannot be waited for

    def run():
        try:
            asyncio.run(play())
        except Exception as error:  # shown where the test waits for the thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    starts.wait(60)
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended already, by a failure
            stop[0]()
        thread.join(60)
    if failures:
        raise failures[0]
