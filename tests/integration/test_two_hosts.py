"""A run on two hosts whose link is cut amid an epoch: two network namespaces joined by a virtual cable.

Asks for root, iproute2 and DEQ_COLLAPSE_TWO_HOSTS=1; takes a minute or two.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CONF = Path(__file__).parents[2] / "conf" / "ranks"
PATIENCE = 50
"""Seconds that each waits for the other here."""
HOSTS = ("deq-a", "deq-b")
ASKED = os.environ.get("DEQ_COLLAPSE_TWO_HOSTS") and os.geteuid() == 0 and shutil.which("ip")

pytestmark = pytest.mark.skipif(not ASKED, reason="asks for DEQ_COLLAPSE_TWO_HOSTS=1, root and iproute2")


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, ...]]:
    """Two namespaces, 10.77.0.1 and 10.77.0.2."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", HOSTS[0], "netns", HOSTS[0], "type", "veth", "peer", HOSTS[1], "netns", HOSTS[1])
        for number, host in enumerate(HOSTS, start=1):
            ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", host)
            for device in ("lo", host):
                ip("-n", host, "link", "set", device, "up")
        yield HOSTS
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def start(hosts: tuple[str, ...], args: list[str]) -> list[subprocess.Popen[str]]:
    """The same command on either."""
    runs = []
    for number, host in enumerate(hosts):
        command = ["ip", "netns", "exec", host, sys.executable, "-m", "deq_collapse.cli", *args]
        variables = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "1"}
        variables |= {"NODE_RANK": str(number), "LOCAL_RANK": "0", "GLOO_SOCKET_IFNAME": host}
        pipe = subprocess.PIPE
        runs.append(
            subprocess.Popen(command, env=os.environ | variables, stdout=pipe, stderr=pipe, text=True)
        )
    return runs


def test_a_link_cut_amid_an_epoch_ends_both_hosts_in_time_and_the_run_goes_on(hosts, small_fit, tmp_path):
    run = tmp_path / "run"
    args = small_fit(run, "--config", str(CONF / "several.yaml"), refinement="equilibrium", epochs=12)
    args += ["--trainer.devices", "1", "--trainer.num_nodes", "2"]
    patience = f"{{class_path: DDPStrategy, init_args: {{timeout: '0:00:{PATIENCE}'}}}}"
    args += ["--trainer.strategy", patience]
    both = start(hosts, args)
    while not (run / "last.ckpt").exists():
        assert all(each.poll() is None for each in both), [each.communicate() for each in both]
        time.sleep(0.01)
    ip("-n", hosts[0], "link", "set", hosts[0], "down")
    cut = time.monotonic()
    for host, each in zip(hosts, both, strict=True):
        said = each.communicate(timeout=10 * PATIENCE)[1]
        print(f"{host} ended {time.monotonic() - cut:.0f} s after the cut, with {each.returncode}: {said}")
        assert each.returncode == 2
        assert "another process of the run ended, or could not be reached" in said
        assert "Traceback" not in said
    assert not (run / "result.json").exists()
    ip("-n", hosts[0], "link", "set", hosts[0], "up")
    for each in start(hosts, [*args, "--ckpt_path", "last"]):
        said = each.communicate(timeout=1000)[1]
        assert each.returncode == 0, said
    assert (run / "result.json").exists()
