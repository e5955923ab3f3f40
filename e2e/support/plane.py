"""A control plane without nodes of its own (hack/control-plane.sh), and the operator as a process on this machine.

For what crosses the API server but no pod: everything here is real but the nodes, which kwok plays.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "hack" / "control-plane.sh"
# The sanitizers' build is what the tests use: it ends with a report where a release would go on.
OPERATOR = ROOT / "build" / os.environ.get("THOLE_TEST_PRESET", "asan") / "thole-operator"


def until(condition, seconds, what):
    """Waits until condition() is true and returns what it gave; `what` may be a function, for the complaint."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what() if callable(what) else what}")
        time.sleep(0.02)


class Plane:
    """Where it is (kubeconfig, directory, audit, toxiproxy), and what may befall it."""

    def __init__(self, environment):
        self.environment = environment
        self.kubeconfig = environment["THOLE_TEST_KUBECONFIG"]
        self.directory = pathlib.Path(environment["THOLE_TEST_DIRECTORY"])
        self.audit = pathlib.Path(environment["THOLE_TEST_AUDIT"])
        self.toxiproxy = environment["THOLE_TEST_TOXIPROXY"]

    def control(self, *verb):
        """kill-api, start-api [FLAG...], freeze-api, thaw-api, compact, delete-key KEY."""
        subprocess.run([SCRIPT, "control", *verb], env=self.environment, check=True)

    def kubectl(self, *arguments, text=None, check=True):
        kubectl = pathlib.Path(self.environment["THOLE_TEST_KUBERNETES"]) / "kubectl"
        result = subprocess.run([kubectl, "--kubeconfig", self.kubeconfig, *arguments], input=text, text=True,
                                capture_output=True)
        assert not check or result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result

    @contextlib.contextmanager
    def toxic(self, kind, stream="downstream", **attributes):
        """The proxy before the API server does this to what passes, until the end of it (toxiproxy's toxics)."""
        toxic = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
        toxics = f"{self.toxiproxy}/proxies/api/toxics"
        urllib.request.urlopen(urllib.request.Request(toxics, json.dumps(toxic).encode(), method="POST")).close()
        try:
            yield
        finally:
            urllib.request.urlopen(urllib.request.Request(f"{toxics}/{kind}", method="DELETE")).close()

    def holding_back(self):
        """What is sent to the API server by way of the proxy stays there, until the end of this."""
        return self.toxic("latency", "upstream", latency=600_000)  # "timeout" would drop it in the end

    def audited(self, since=0):
        """The requests that the API server has answered, from a place in its log (see audit_position)."""
        with self.audit.open("rb") as log:
            log.seek(since)
            return [json.loads(line) for line in log if line.endswith(b"\n")]

    def audit_position(self):
        """Where its next whole line begins: the server may be in the middle of one."""
        with self.audit.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(0, end - 1_000_000))
            tail = log.read(end - log.tell())
        return end - len(tail) + tail.rfind(b"\n") + 1


@contextlib.contextmanager
def running(*options):
    """A control plane, from its start to its end."""
    hold = 'env -0 >"$THOLE_TEST_DIRECTORY/environment"; echo "$THOLE_TEST_DIRECTORY"; exec cat'
    script = subprocess.Popen([SCRIPT, *options, "bash", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True)
    try:
        directory = script.stdout.readline().strip()
        if not directory:
            raise RuntimeError(f"{SCRIPT} did not start; what it said is above")
        entries = pathlib.Path(directory, "environment").read_text().split("\0")
        yield Plane(dict(entry.split("=", 1) for entry in entries if "=" in entry))
    finally:
        script.stdin.close()
        script.stdout.close()
        script.wait(60)


class Operator:
    """A running thole-operator. Its log is kept in a file; what it did wrong at its end fails the test."""

    def __init__(self, plane, directory, *flags, binary=OPERATOR, environment=None, context="admin"):
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory / "operator.log"
        key = directory.parent / "key"
        if not key.exists():
            key.write_bytes(b"0123456789abcdef0123456789abcdef")
        given = {flag.split("=", 1)[0] for flag in flags}
        defaults = {"--kubeconfig": plane.kubeconfig, "--context": context, "--key-file": str(key),
                    "--trainer-image": "thole-trainer:test", "--listen": "127.0.0.1:0", "--log-format": "json",
                    "--log-level": "debug", "--allowed-host-paths": "/data"}
        command = [str(binary), *(f"{name}={value}" for name, value in defaults.items() if name not in given), *flags]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log,
                                            env={**os.environ, "KUBECONFIG": "", **(environment or {})})
        self.pid = self.process.pid
        self._good_ends = {0, -signal.SIGKILL}

    def log(self):
        return self.log_path.read_text(errors="replace")

    def lines(self):
        """The log as objects; what is no JSON (a sanitizer's report) is left out."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def complaint(self, what):
        return f"{what}; the end of its log ({self.log_path}):\n" + "\n".join(self.log().splitlines()[-30:])

    def alive(self):
        return self.process.poll() is None

    @property
    def url(self):
        """Where its server listens, once it does."""

        def served():
            assert self.alive(), self.complaint(f"the operator ended with {self.process.returncode}")
            return next((line for line in self.lines() if line.get("message") == "serving"), None)

        line = until(served, 60, lambda: self.complaint("the operator's server"))
        return f"http://127.0.0.1:{line['advertised'].rsplit(':', 1)[1]}"

    def get(self, path):
        """(status, text) of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self, seconds=60):
        """Waits until /readyz says so; returns itself."""
        until(lambda: self.get("/readyz")[0] == 200, seconds, lambda: self.complaint("the operator to be ready"))
        return self

    def metrics(self):
        """Every sample: (name, frozenset of (label, value)) -> number."""
        from prometheus_client.parser import text_string_to_metric_families

        status, text = self.get("/metrics")
        assert status == 200, text
        return {(sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(text) for sample in family.samples}

    def metric(self, name, **labels):
        """The sum of all samples of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (sample, has), value in self.metrics().items() if sample == name and wanted <= has)

    def kill(self):
        """At once, as by a lost node."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def resigned(self, seconds=60):
        """Waits until it ends by itself, as one does that has lost the lead."""
        until(lambda: not self.alive(), seconds, lambda: self.complaint("the operator to end by itself"))
        assert self.process.returncode == 1, self.complaint(f"the operator ended with {self.process.returncode}")
        self._good_ends.add(1)

    def stop(self, seconds=60):
        """As Kubernetes does it; fails where it does not end with success."""
        if self.alive():
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGABRT)
                self.process.wait(30)
                raise AssertionError(self.complaint(f"the operator did not end within {seconds} s")) from None
        code = self.process.returncode
        assert code in self._good_ends, self.complaint(f"the operator ended with {code}")
        for report in ("runtime error:", "Sanitizer:"):
            assert report not in self.log(), self.complaint(f"a sanitizer's report ({report})")


def stop_all(operators):
    """Ends every one of them, whatever becomes of the others; fails with all their complaints."""
    complaints = []
    for operator in operators:
        try:
            operator.stop()
        except AssertionError as error:
            complaints.append(str(error))
    assert not complaints, "\n".join(complaints)
