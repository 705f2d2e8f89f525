"""A Slurm of our own on this machine: a login node and two more, each with a host name, an address and a network.

Needs root on Linux and Debian's packages slurm-wlm and munge. All files are in one directory, all links in network
namespaces, and everything ends with it.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "ip", "nsenter", "unshare")
NODES = ("node1", "node2")
ADDRESSES = {"login": "10.77.0.10", "node1": "10.77.0.11", "node2": "10.77.0.12"}
BRIDGE = "bridge"
# What is private to a host: its network, its name, and the addresses that it knows.
ON_HOST = 'hostname "$0"; mount --bind "$HOSTS" /etc/hosts; exec "$@"'
CONFIGURATION = """
ClusterName=emacheck
SlurmctldHost=login({login})
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={directory}/munge/socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
LaunchParameters=use_interactive_step
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
ReturnToService=2
NodeName=node1 NodeAddr={node1} NodeHostname=node1 CPUs=8 CoresPerSocket=8 RealMemory=4000
NodeName=node2 NodeAddr={node2} NodeHostname=node2 CPUs=8 CoresPerSocket=8 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES State=UP OverSubscribe=YES
"""


def what_lacks():
    """Say what this machine lacks for a Slurm of its own; None if nothing."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"found no {', '.join(lacking)}: apt-get install slurm-wlm munge iproute2"
    return None if os.geteuid() == 0 else "starting nodes needs root"


class PrivateCluster:
    """A running Slurm; leave it as a context."""

    def __init__(self, directory: Path):
        self._directory = directory

    def __enter__(self):
        try:
            self._write_files()
            self._connect_hosts()
            munge = self._directory / "munge"
            files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
            _call("munged", "--force", *(f"--{name}={munge / name.removesuffix('-file')}" for name in files))
            munge.chmod(0o711)
            for host, *daemon in (("login", "slurmctld", "-c"), *((node, "slurmd", "-N", node) for node in NODES)):
                self.start(host, *daemon).wait()
            self._wait_until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.start("login", "scancel", "--user=root").wait(20)
            time.sleep(3)
        for name in ("node1.pid", "node2.pid", "slurmctld.pid", "munge/pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((self._directory / name).read_text()), signal.SIGTERM)
        for host in ADDRESSES:
            subprocess.run(["ip", "netns", "del", _namespace(host)], capture_output=True, check=False)

    def start(self, host, *command, cwd=None, env=None, **options):
        """Start a command on one of the hosts."""
        there = ["nsenter", f"--net=/run/netns/{_namespace(host)}", "unshare", "--uts", "--mount"]
        own = {"SLURM_CONF": str(self._directory / "slurm.conf"), "HOSTS": str(self._directory / "hosts")}
        return subprocess.Popen(
            [*there, "sh", "-c", ON_HOST, host, *map(str, command)],
            cwd=cwd,
            env={**os.environ, **own, **(env or {})},
            stdin=subprocess.DEVNULL,
            **options,
        )

    def _write_files(self):
        for name in ("munge", "state", *(f"spool/{node}" for node in NODES)):
            (self._directory / name).mkdir(parents=True, mode=0o755 if name != "munge" else 0o700)
        key = self._directory / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        configuration = CONFIGURATION.format(directory=self._directory, **ADDRESSES)
        (self._directory / "slurm.conf").write_text(configuration)
        # Otherwise slurmd wants control groups, which nothing here uses.
        (self._directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        hosts = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
        (self._directory / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")

    def _connect_hosts(self):
        for host in ADDRESSES:
            _call("ip", "netns", "add", _namespace(host))
            _call("ip", "-n", _namespace(host), "link", "set", "lo", "up")
        login = ("ip", "-n", _namespace("login"))
        _call(*login, "link", "add", BRIDGE, "type", "bridge")
        _call(*login, "addr", "add", f"{ADDRESSES['login']}/16", "dev", BRIDGE)
        _call(*login, "link", "set", BRIDGE, "up")
        for node in NODES:
            inside = ("ip", "-n", _namespace(node))
            _call(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", _namespace("login"))
            _call(*inside, "addr", "add", f"{ADDRESSES[node]}/16", "dev", "eth0")
            _call(*inside, "link", "set", "eth0", "up")
            _call(*login, "link", "set", node, "master", BRIDGE, "up")

    def _wait_until_idle(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            said, _ = self.start("login", "sinfo", "-h", "-t", "idle", "-o", "%D", stdout=subprocess.PIPE).communicate()
            if said.strip() == b"2":
                return
            time.sleep(0.5)
        raise RuntimeError(f"the nodes are not ready; their logs are in {self._directory}")


def _namespace(host):
    return f"sl-{host}"


def _call(*command):
    subprocess.run(command, check=True)
