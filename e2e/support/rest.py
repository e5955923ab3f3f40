"""The API server for tests that ask it many things at once: plain requests and watches over asyncio.

A client with one process and no copies of objects: a load generator must not be what is measured. The kubeconfig is
one of hack/control-plane.sh's: its certificate and key are files.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from support import kubeconfig as kubeconfigs

MERGE = "application/merge-patch+json"

Object = dict[str, Any]


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, method: str, path: str, code: int, text: str):
        super().__init__(f"{method} {path}: {code}: {text[:500]}")
        self.code = code


def path_of(resource: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """`resource` as "apps/v1/deployments"; of the core group "v1/pods"."""
    prefix, plural = resource.rsplit("/", 1)
    parts = ["/api" if prefix == "v1" else "/apis", prefix]
    parts += ["namespaces", namespace] if namespace else []
    return "/".join(part for part in (*parts, plural, name, subresource) if part)


def _open(kubeconfig: str | Path) -> tuple[str, ssl.SSLContext]:
    access = kubeconfigs.read(kubeconfig)
    tls = ssl.create_default_context(cafile=access.authority)
    tls.load_cert_chain(access.certificate, access.key)
    return access.server, tls


class Rest:
    """`async with Rest(kubeconfig) as api`. Everything answers with the decoded object, or raises Refused."""

    def __init__(self, kubeconfig: str | Path, connections: int = 16):
        self._url, self._tls = _open(kubeconfig)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Rest":
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=self._connections + 64)
        self._room = asyncio.Semaphore(self._connections)
        self._session = aiohttp.ClientSession(self._url, connector=connector, headers={"Accept-Encoding": "identity"},
                                              timeout=aiohttp.ClientTimeout(total=120))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(self, method: str, path: str, body: Object | bytes | None = None,
                      content_type: str = "application/json") -> Object:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        async with self._room, self._session.request(method, path, data=data, headers=headers) as answer:
            text = await answer.read()
            if answer.status // 100 != 2:
                raise Refused(method, path, answer.status, text.decode(errors="replace"))
            return json.loads(text)

    async def get(self, path: str) -> Object:
        return await self.request("GET", path)

    async def create(self, resource: str, namespace: str | None, body: Object | bytes) -> Object:
        return await self.request("POST", path_of(resource, namespace), body)

    async def patch(self, path: str, body: Object) -> Object:
        return await self.request("PATCH", path, body, MERGE)

    async def delete(self, path: str, **options: Any) -> None:
        try:
            await self.request("DELETE", path, options or None)
        except Refused as refused:
            if refused.code != 404:
                raise

    async def list(self, resource: str, namespace: str | None = None, query: str = "") -> list[Object]:
        return (await self.get(f"{path_of(resource, namespace)}?{query}"))["items"]

    async def watch_lines(self, resource: str, namespace: str | None = None, query: str = "") -> AsyncIterator[bytes]:
        """The events of one watch as they come, undecoded, the objects that are there already first."""
        path = f"{path_of(resource, namespace)}?watch=true&{query}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
        rest = b""
        async with self._session.get(path, timeout=timeout) as answer:
            if answer.status != 200:
                raise Refused("WATCH", path, answer.status, (await answer.read()).decode(errors="replace"))
            async for piece in answer.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line

    async def follow(self, resource: str, handler: Callable[[str, Object], None], namespace: str | None = None,
                     query: str = "") -> None:
        """Calls handler(type, object) for all that is and will be there, for ever; what is told twice was there before.
        A watch that ends is begun anew."""
        while True:
            try:
                async for line in self.watch_lines(resource, namespace, query):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    handler(event["type"], event["object"])
            except (aiohttp.ClientError, Refused, OSError):
                pass
            await asyncio.sleep(0.1)
