"""What this host knows of the network: which names have an address, and at which of its own it is found."""

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Iterable

# How gloo says at which address it has looked for another process.
REMOTE = re.compile(r"remote=\[([0-9a-fA-F:.]+)")
# A function of ours, in the traceback of a process that waits to be connected with the others.
CONNECTING = "in join_processes"


def addresses_of(host: str) -> list[str]:
    """Return the addresses that a name has on this host; none if it is not known here.

    Example:
        >>> addresses_of("10.0.0.5")
        ['10.0.0.5']
    """
    with contextlib.suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(place[0]) for *_, place in found))
    return []


def rendezvous_arguments(endpoint: str, own_name: str | None = None) -> list[str]:
    """Return the arguments of torch's launcher that say where the rendezvous is, and where others find this host.

    torch asks the name of this host for its address, to see whether the endpoint is here, and tells the others that
    name. On Debian that address is one of the loopback; elsewhere the name may have none. Then torch is told.

    Args:
        endpoint: ``HOST:PORT``, as every node was given it.
        own_name: The name of this host; what the system says if None.

    Example:
        >>> rendezvous_arguments("127.0.0.1:29400", own_name="127.0.1.1")
        ['--rdzv-endpoint=localhost:29400', '--local-addr=127.0.0.1']
    """
    usual = [f"--rdzv-endpoint={endpoint}"]
    text, _, port = endpoint.rpartition(":")
    host = text.strip("[]")
    there = addresses_of(host)
    if not there or not _are_loopback(addresses_of(own_name or socket.gethostname())):
        return usual
    if any(map(_is_own, there)):
        # For torch, and whoever comes first holds it; the others reach this host under the name that they were given.
        return [f"--rdzv-endpoint=localhost:{port}", f"--local-addr={host}"]
    own = _address_towards(there[0])
    return [*usual, "--rdzv-conf=is_host=0", *([f"--local-addr={own}"] if own else [])]


def has_loopback() -> bool:
    """Tell whether this host can speak to itself: processes meet through its loopback interface."""
    return any(_address_towards(each) == each for each in ("127.0.0.1", "::1"))


def _are_loopback(addresses: Iterable[str]) -> bool:
    return all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses)


def _is_own(address: str) -> bool:
    with contextlib.suppress(OSError), _socket(address, socket.SOCK_STREAM) as here:
        here.bind((address, 0))
        return True
    return False


def _address_towards(address: str) -> str | None:
    """Return the address of this host that another one sees; no packet is sent to find out."""
    with contextlib.suppress(OSError), _socket(address, socket.SOCK_DGRAM) as here:
        here.connect((address, 9))
        return str(here.getsockname()[0])
    return None


def _socket(address: str, kind: socket.SocketKind) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)


def not_connected(said: str = "") -> str:
    """Return what to do where processes of several nodes have met and could not be connected.

    Args:
        said: What gloo says about it; nothing if they still wait.
    """
    remote = REMOTE.search(said)
    if remote and _are_loopback([remote[1]]):
        why = (
            f"A node has told the others to look for it at {remote[1]}, where each finds only itself: the host name of "
            "that node has this address there (/etc/hosts), or none."
        )
    else:
        why = (
            "Processes of several nodes connect to each other at the address that the host name of each has there, and "
            "on ports that the system chooses: a firewall may drop that, or the address be one of an interface that "
            "the others do not reach."
        )
    chosen = os.environ.get("GLOO_SOCKET_IFNAME")
    found = f" (found {chosen})" if chosen else ""
    return (
        f"{why} Name on every node the interface at which the others reach it, as GLOO_SOCKET_IFNAME=eth0 in the "
        f"environment{found}; ip addr lists them. The firewall must pass all ports between the nodes."
    )
