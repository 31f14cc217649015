"""A Kafka as a site has one: TLS and SCRAM-SHA-512, rights by user, one node.

    SASL_SSL   on the address by which clients reach this machine: `sluice` may do everything, `poor` nothing
    PLAINTEXT  on loopback: for the audit

The jars are those of `make kafka`.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBS = ROOT / ".kafka/libs"
START_S = 300.0
PASSWORDS = {"sluice": "cluster-test-1", "poor": "cluster-test-2"}
INSIDE, OUTSIDE, CONTROLLER = 19192, 19193, 19194
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{inside},SASL_SSL://{address}:{outside},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{inside},SASL_SSL://{address}:{outside}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:sluice
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
"""


@dataclass
class Broker:
    """The broker; what it holds is kept over `stop` and `start`."""

    address: str
    folder: Path
    process: subprocess.Popen | None = field(default=None, init=False)

    @property
    def servers(self) -> str:
        """Where pods find it."""
        return f"{self.address}:{OUTSIDE}"

    @property
    def here(self) -> str:
        """Where this machine finds it, without a password."""
        return f"127.0.0.1:{INSIDE}"

    def start(self) -> None:
        """Make certificates and storage once, start, wait until it serves. Raises `RuntimeError` when it does not."""
        if not (LIBS / "complete").exists():
            raise RuntimeError("Kafka's jars are missing; run `make kafka kafka-stop` once")
        if not (self.folder / "data").exists():
            self._make()
        log = (self.folder / "broker.log").open("a")
        command = self._java(
            "-Xmx768m",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={ROOT / 'tests/kafka/log4j2.properties'}",
        )
        command += ["kafka.Kafka", str(self.folder / "server.properties")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        deadline = time.monotonic() + START_S
        while not self._serves():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kafka does not serve: {(self.folder / 'broker.log').read_text()[-800:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it, in order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
        self.process = None

    def _serves(self) -> bool:
        for address in (("127.0.0.1", INSIDE), (self.address, OUTSIDE)):
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return False
        return True

    def _make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        certificates(self.folder, self.address)
        names = {"inside": INSIDE, "outside": OUTSIDE, "controller": CONTROLLER}
        text = PROPERTIES.format(address=self.address, folder=self.folder, **names)
        (self.folder / "server.properties").write_text(text)
        tool = [*self._java("-Xmx256m"), "kafka.tools.StorageTool"]
        cluster = run(*tool, "random-uuid").split()[-1]
        users = [
            part for user, word in PASSWORDS.items() for part in ("-S", f"SCRAM-SHA-512=[name={user},password={word}]")
        ]
        run(*tool, "format", "--standalone", "-t", cluster, "-c", str(self.folder / "server.properties"), *users)

    def _java(self, *flags: str) -> list[str]:
        return ["java", *flags, "-cp", f"{LIBS}/*"]


def certificates(folder: Path, address: str) -> None:
    """An authority, and the broker's certificate for this address, key and certificate in one file."""
    make = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "7"]
    run(*make, "-x509", "-subj", "/CN=test", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.crt")
    run(*make[:5], "-subj", "/CN=kafka", "-keyout", f"{folder}/broker.key", "-out", f"{folder}/broker.csr")
    kind = "IP" if address.replace(".", "").isdigit() else "DNS"
    (folder / "san").write_text(f"subjectAltName={kind}:{address}\n")
    sign = ["openssl", "x509", "-req", "-in", f"{folder}/broker.csr", "-CA", f"{folder}/ca.crt", "-days", "7"]
    sign += ["-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-extfile", f"{folder}/san"]
    run(*sign, "-out", f"{folder}/broker.crt")
    both = (folder / "broker.key").read_text() + (folder / "broker.crt").read_text()
    (folder / "broker.pem").write_text(both)


def run(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
