"""A RabbitMQ of a test's own, and the stage of Celery on it: free ports of 127.0.0.1, its own folders, ended with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from stage import Stage

from harness import free_port, wait_until

PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Where the server's own script lies. What a distribution puts into the PATH may be one that changes the user first."""
START_S = 90.0
CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.file = false
disk_free_limit.absolute = 1MB
"""


def server() -> str | None:
    """The server's script; None: there is no RabbitMQ here."""
    return shutil.which("rabbitmq-server", path=os.pathsep.join(PLACES)) or shutil.which("rabbitmq-server")


class RabbitStage(Stage):
    """Celery with RabbitMQ as its broker."""

    broker_port = 0

    def env(self, service: str, **more: str) -> dict[str, str]:
        """Beside what every play has: where the broker is."""
        return super().env(service, BROKER=f"amqp://guest:guest@127.0.0.1:{self.broker_port}//", **more)

    def open_broker(self) -> None:
        """Start Erlang's port mapper, then the server: both here, neither as a daemon of the machine."""
        found = server()
        assert found is not None
        self.broker_port, mapper, between = free_port(), free_port(), free_port()
        home = self.folder / "rabbit"
        home.mkdir()
        (home / "rabbitmq.conf").write_text(CONFIG.format(port=self.broker_port))
        env = {
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"le{self.broker_port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(between),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        }
        self.processes.start("epmd", "-address", "127.0.0.1", "-port", str(mapper), env=env)
        wait_until(lambda: answers(mapper), "Erlang's port mapper")
        self.broker = self.processes.start(found, env=env, cwd=home)
        self.broker.wait_for("Server startup complete|completed with [0-9]+ plugins", START_S)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def listeners(pids: set[int]) -> Iterator[str]:
    """The addresses on which these processes listen (Linux), as `/proc` writes them: 0100007F is 127.0.0.1."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(link))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                yield words[1].partition(":")[0]
