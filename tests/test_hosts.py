"""``emacheck run`` on two hosts that share nothing but a wire: namespaces of network, name, processes and mounts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SLIM, wait_until
from several_processes import ONE_EACH, SHORT

from emacheck.logs import read_log

pytestmark = pytest.mark.training
# On Debian the name of a host is that of its own loopback, and no name server knows the others.
HOST = """
set -e
ip link set dev lo up
hostname node$1
printf '127.0.0.1 localhost\\n127.0.1.1 node%s\\n' "$1" > hosts
mount --bind hosts /etc/hosts
until ip addr add 10.66.1.$1/24 dev eth0 2> /dev/null; do sleep 0.05; done
ip link set dev eth0 up
shift
exec "$@"
"""
NAMESPACES = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def why_not():
    """Return why no host can be made here, or None."""
    wire = ("ip", "link", "add", "one", "type", "veth", "peer", "name", "other")
    try:
        done = subprocess.run([*NAMESPACES, *wire], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return f"exit code {done.returncode}: {done.stderr.strip()}" if done.returncode else None


def start(number, place, *arguments, **variables):
    """Start a command on a host of its own, in a directory of its own."""
    place.mkdir()
    return subprocess.Popen(
        [*NAMESPACES, "sh", "-c", HOST, "sh", str(number), sys.executable, "-m", "emacheck", *map(str, arguments)],
        cwd=place,
        env={**os.environ, "TMPDIR": str(place), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def connect(*hosts):
    """Lay a wire between two hosts."""
    ours = Path("/proc/self/ns/net").readlink()
    assert wait_until(lambda: all(Path(f"/proc/{host.pid}/ns/net").readlink() != ours for host in hosts))
    first, second = (["eth0", "netns", str(host.pid)] for host in hosts)
    subprocess.run(["ip", "link", "add", *first, "type", "veth", "peer", "name", *second], check=True)


def test_two_hosts_without_names_for_each_other_train_together_at_a_rendezvous(workshop):
    """Each is told by which interface the other reaches it, for its own name is that of its loopback."""
    if reason := why_not():
        pytest.skip(f"no host can be made here: {reason}")
    there = ("--nnodes", 2, "--rdzv-endpoint", "10.66.1.1:29400", "--work-dir", "out")
    places = workshop / "first", workshop / "second"
    hosts = [
        start(number, place, "run", *SHORT, *there, *ONE_EACH, *SLIM, GLOO_SOCKET_IFNAME="eth0")
        for number, place in enumerate(places, 1)
    ]
    try:
        connect(*hosts)
        said = [host.communicate(timeout=240) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], said
    assert "PASS" in said[0][0]
    assert "rank 0 ran" in said[1][0]
    first, second = (next(place.glob("out-*")) for place in places)
    assert first.name.startswith("out-node1-")
    assert (read_log(first).ranks, read_log(second).ranks) == (2, 1)
