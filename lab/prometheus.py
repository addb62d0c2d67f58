"""Instant queries, as the operator asks them."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlencode, urlsplit


class Prometheus:
    """One Prometheus by its address; each thread has a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of an instant vector. Raises ConnectionError when it does not answer."""
        path = f"/api/v1/query?{urlencode({'query': expression})}"
        for attempt in (1, 2):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                parts = urlsplit(self.address)
                connection = self._local.connection = http.client.HTTPConnection(
                    parts.hostname or "", parts.port, timeout=5
                )
                self._connections.append(connection)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                if attempt == 2:
                    raise ConnectionError(f"{self.address}: {error}") from error
                continue
            # It answers 503 in plain words until its storage is open.
            if response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise ConnectionError(f"{self.address}: {response.status} {body[:200]!r}")
            document = json.loads(body)
            if document.get("status") != "success":
                raise ValueError(f"{expression}: {document.get('error')}")
            return [(series["metric"], float(series["value"][1])) for series in document["data"]["result"]]
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()

    def value(self, expression: str) -> float | None:
        """The one value of a query, None for an empty vector."""
        series = self.query(expression)
        return series[0][1] if series else None
