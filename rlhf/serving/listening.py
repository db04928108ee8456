"""Where a server listens: the bound socket, and whether other machines reach it."""

from __future__ import annotations

import ipaddress
import socket

from rlhf.errors import BadInput, BadUsage, Conflict


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Conflict where the port is taken, BadUsage for a number that is no port, BadInput where the
    host is none of this machine's."""
    # asyncio sends small answers at once only on sockets that say they are TCP; on others each waits 40 ms for the client's word.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except OverflowError:
        bound.close()
        raise BadUsage(f"{port} is no port", fix="give --port a number from 0 to 65535") from None
    except socket.gaierror:
        bound.close()
        raise BadInput(
            f"the host {host!r} isn't known", fix="give --host an address of this machine, for instance 127.0.0.1"
        ) from None
    except OSError as error:
        bound.close()
        raise Conflict(
            f"{host}:{port} can't be used: {error.strerror}", fix="stop what uses it, or give another --port"
        ) from None
    return bound


def address_of(host: str, bound: socket.socket) -> str:
    """`http://127.0.0.1:8765`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
