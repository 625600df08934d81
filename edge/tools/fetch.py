"""HTTP for tools: bounded in time and size, and never to an address of the inner network unless that was allowed.

A host name is resolved once, each address is checked, and the connection goes to the address that was checked: a name
that answers differently the second time changes nothing. Every redirect is checked anew. No proxies, no cookies.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from edge.tools.executable import CallContext, ToolFailure
from edge.tools.text import shown_exactly

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_REDIRECTS = {301, 302, 303, 307, 308}
_REFUSED_HEADERS = {
    "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect",
    "proxy-authorization", "proxy-connection", "accept-encoding",
}  # fmt: skip
_SECRET_HEADERS = {"authorization", "cookie", "x-api-key"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """Limits. allow_private: hosts (`nas.local`, `localhost:8080`) and networks (`192.168.1.0/24`) of the inside."""

    timeout_s: float = 20.0
    max_bytes: int = 2_000_000
    max_redirects: int = 5
    allow_private: Sequence[str] = ()
    user_agent: str = "smoltools-edge"
    resolve: Callable[[str, int], list[str]] = resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back, decoded; cut: there was more."""

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    cut: bool

    def text(self) -> str:
        """The body as text. Raises ToolFailure for what is none."""
        kind = self.headers.get("content-type", "text/plain")
        if b"\0" in self.body[:2048] and "utf-16" not in kind.lower():
            raise ToolFailure(f"the answer is {shown_exactly(kind)}, {len(self.body)} bytes, and not text")
        charset = kind.lower().partition("charset=")[2].split(";")[0].strip(" \"'") or "utf-8"
        try:
            return self.body.decode(charset, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")


def fetch(request: Request, options: FetchOptions, context: CallContext) -> Response:
    """The answer to a request, after redirects. Raises ToolFailure saying what went wrong."""
    for _ in range(options.max_redirects + 1):
        url = _checked_url(request.url)
        response = _once(request, url, options, context)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or not location:
            return response
        request = _redirected(request, url, response.status, location)
    raise ToolFailure(f"more than {options.max_redirects} redirects")


def _checked_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        port, host = parts.port, parts.hostname
    except ValueError as exc:
        raise ToolFailure(f"{shown_exactly(url)} is no address: {exc}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ToolFailure(f"{shown_exactly(url)} is no http or https address")
    if "@" in parts.netloc:
        raise ToolFailure("an address with a user name in it is refused")
    if port == 0:
        raise ToolFailure("port 0 is no port")
    return parts


def _redirected(request: Request, old: SplitResult, status: int, location: str) -> Request:
    url = urljoin(request.url, location)
    new = _checked_url(url)
    if old.scheme == "https" and new.scheme == "http":
        raise ToolFailure(f"redirected from https to http ({shown_exactly(url)}); that is refused")
    headers = dict(request.headers)
    same_host = (old.hostname, old.port) == (new.hostname, new.port)
    if not same_host:
        headers = {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}
    keep = status in (307, 308) or request.method in ("GET", "HEAD")
    if not keep:
        return Request(url=url, headers=headers)
    if request.body is not None and not same_host:
        raise ToolFailure(f"redirected to another host ({shown_exactly(url)}) with a body; that is refused")
    return Request(url=url, method=request.method, headers=headers, body=request.body)


def checked_address(host: str, port: int, options: FetchOptions) -> str:
    """An address of the host that may be connected to. Raises ToolFailure."""
    try:
        addresses = options.resolve(host, port)
    except (OSError, UnicodeError) as exc:
        raise ToolFailure(f"the host {shown_exactly(host)} is not known: {exc}") from None
    for address in addresses:
        if _is_allowed(address, host, port, options.allow_private):
            return address
    raise ToolFailure(
        f"{shown_exactly(host)} is {', '.join(addresses) or 'nowhere'}, an address that is not public; "
        "the user can allow it in the tools' configuration (http.allow_private)"
    )


def _is_allowed(text: str, host: str, port: int, allow_private: Sequence[str]) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if is_public(address):
        return True
    for entry in allow_private:
        if entry.lower() in (host.lower(), f"{host.lower()}:{port}"):
            return True
        with suppress(ValueError):
            if address in ipaddress.ip_network(entry):
                return True
    return False


def is_public(address: Address) -> bool:
    """The address belongs to the public internet, also as it is wrapped in an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if any(one is not None and not is_public(one) for one in inner):
            return False
        if address.ipv4_mapped is not None:
            return True  # its inside is public; is_global is not the same in all Pythons
        if address.is_site_local:
            return False
    odd = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    return address.is_global and not odd


def _once(request: Request, url: SplitResult, options: FetchOptions, context: CallContext) -> Response:
    host = _ascii_host(url)
    port = url.port or (443 if url.scheme == "https" else 80)
    address = checked_address(host, port, options)
    timeout_s = min(options.timeout_s, context.remaining_s)
    if timeout_s <= 0:
        raise ToolFailure("there is no time left for the request")
    connection = _Connection(host, port, address, secure=url.scheme == "https", timeout_s=timeout_s)
    # A server that sends a byte now and then would never run into the socket's own timeout.
    watchdog = threading.Timer(timeout_s, connection.abort)
    watchdog.daemon = True
    watchdog.start()
    context.on_cancel(connection.abort)
    try:
        connection.request(
            request.method, _target(url), body=request.body, headers=_headers(request, options)
        )
        response = _read(connection.getresponse(), request, options)
        if connection.aborted:
            raise TimeoutError
        return response
    except (OSError, http.client.HTTPException, ValueError, zlib.error) as exc:
        late = connection.aborted or isinstance(exc, TimeoutError)
        why = f"no complete answer within {timeout_s:.0f} s" if late else str(exc) or type(exc).__name__
        raise ToolFailure(f"{shown_exactly(host)}: {why}") from None
    finally:
        watchdog.cancel()
        connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked; the host name is only for TLS and the Host header."""

    def __init__(self, host: str, port: int, address: str, *, secure: bool, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._address, self._secure, self.aborted = address, secure, False
        self._live: socket.socket | None = None  # http.client forgets its own while the answer is still read
        self.default_port = 443 if secure else 80

    def connect(self) -> None:
        """Connects to the checked address; TLS checks the certificate against the host name."""
        self.sock = self._live = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = self._live = ssl.create_default_context().wrap_socket(
                self.sock, server_hostname=self.host
            )

    def abort(self) -> None:
        """Ends every wait, from another thread."""
        self.aborted = True
        if self._live is not None:
            with suppress(OSError):
                self._live.shutdown(socket.SHUT_RDWR)


def _ascii_host(url: SplitResult) -> str:
    assert url.hostname
    try:
        return url.hostname.encode("ascii").decode()
    except UnicodeError:
        pass
    try:
        return url.hostname.encode("idna").decode("ascii")
    except UnicodeError:
        raise ToolFailure(f"{shown_exactly(url.hostname)} is no host name") from None


def _target(url: SplitResult) -> str:
    path = quote(url.path or "/", safe="/%:@!$&'()*+,;=-._~")
    query = quote(url.query, safe="/%:@!$&'()*+,;=-._~?[]")
    return f"{path}?{query}" if query else path


def _headers(request: Request, options: FetchOptions) -> dict[str, str]:
    for name in request.headers:
        if name.lower() in _REFUSED_HEADERS:
            raise ToolFailure(f"the header {shown_exactly(name)} cannot be set")
    own = {
        "User-Agent": options.user_agent,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    given = {name.lower() for name in request.headers}
    return {name: value for name, value in own.items() if name.lower() not in given} | dict(request.headers)


def _read(answer: http.client.HTTPResponse, request: Request, options: FetchOptions) -> Response:
    """The body, at most max_bytes of it after unpacking: a small packed body may unpack to gigabytes."""
    headers = {name.lower(): value for name, value in answer.getheaders()}
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise ToolFailure(f"the answer is packed with {shown_exactly(encoding)}, which was not asked for")
    unpack = None if encoding in ("identity", "") else zlib.decompressobj(wbits=47)
    body = bytearray()
    while len(body) <= options.max_bytes:
        chunk = answer.read1(65536)
        if not chunk:
            break
        room = options.max_bytes + 1 - len(body)
        body += chunk[:room] if unpack is None else unpack.decompress(chunk, room)
    cut = len(body) > options.max_bytes
    return Response(request.url, answer.status, answer.reason, headers, bytes(body[: options.max_bytes]), cut)
