"""What a host knows of the network, and what it is told where processes of several hosts are not connected."""

import subprocess
import sys

import pytest

from emacheck.train.launching.network import addresses_of, has_loopback, not_connected, rendezvous_arguments

# A name that is known nowhere, and an address that nobody has (RFC 2606, RFC 5737).
NOWHERE, NOBODYS = "node0.invalid", "192.0.2.7"


def test_a_name_that_is_not_known_here_has_no_address():
    assert addresses_of("127.0.0.1") == ["127.0.0.1"]
    assert addresses_of(NOWHERE) == addresses_of("a..b") == addresses_of("x" * 64) == []


def test_this_host_speaks_to_itself():
    assert has_loopback()


@pytest.mark.parametrize(
    ("endpoint", "own_name"), [("127.0.0.1:1", NOBODYS), (f"{NOBODYS}:1", NOBODYS), (f"{NOWHERE}:1", "127.0.1.1")]
)
def test_torch_finds_its_way_to_a_rendezvous_where_the_host_has_an_address_or_nothing_is_known(endpoint, own_name):
    assert rendezvous_arguments(endpoint, own_name) == [f"--rdzv-endpoint={endpoint}"]


@pytest.mark.parametrize("own_name", ["127.0.1.1", NOWHERE])
def test_a_host_whose_name_is_that_of_its_loopback_is_told_whether_the_rendezvous_is_there(own_name):
    here = rendezvous_arguments("127.0.0.1:7", own_name)
    assert here == ["--rdzv-endpoint=localhost:7", "--local-addr=127.0.0.1"]
    elsewhere = rendezvous_arguments(f"{NOBODYS}:7", own_name)
    assert elsewhere[:2] == [f"--rdzv-endpoint={NOBODYS}:7", "--rdzv-conf=is_host=0"]
    # A host without any way there knows no address under which it would be seen.
    assert all(each.startswith("--local-addr=") and NOBODYS not in each for each in elsewhere[2:])


def test_processes_that_are_not_connected_say_at_which_address_they_looked_and_what_to_set(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    refused = "timed out connecting: SO_ERROR: Connection refused, remote=[127.0.1.1]:29570$1"
    assert "told the others to look for it at 127.0.1.1, where each finds only itself" in not_connected(refused)
    for said in ("", refused, "No route to host, remote=[10.0.0.5]:29570", "remote=[fd00::5]:29570"):
        assert "GLOO_SOCKET_IFNAME=eth0 in the environment; ip addr" in not_connected(said)
        assert ("a firewall may drop that" in not_connected(said)) is (said != refused)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert "in the environment (found lo)" in not_connected(refused)


def test_several_processes_without_a_loopback_interface_are_refused_at_once(tmp_path):
    """In a network of its own, whose loopback interface nobody has started."""
    alone = ("unshare", "--net")
    try:
        done = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(str(error))
    if done.returncode:
        pytest.skip(done.stderr)
    command = [*alone, sys.executable, "-m", "emacheck", "run", "--nproc-per-node", "2", "--work-dir", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "the loopback interface of this machine is down" in done.stderr
