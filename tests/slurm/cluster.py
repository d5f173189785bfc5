"""A Slurm cluster of its own on this machine: munge, one controller, and nodes, which are daemons with host names.

It lives in one directory under /dev/shm. Whatever becomes of the test, nothing is left of it: a guard, which is no
child of the test, waits for the test's end of a pipe to close and then ends every process of the cluster, known by
SLURM_CONF in its environment, and removes the directory.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DAEMONS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

CONFIGURATION = """
ClusterName=lolcats
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
CredType=cred/munge
StateSaveLocation={home}/controller
SlurmdSpoolDir={home}/%n
TmpFS={home}/%n.tmp
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/%n.log
PlugStackConfig={home}/plugstack.conf
TaskPlugin=task/none
ProctrackType=proctrack/linuxproc
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=20
SlurmdTimeout=10
MessageTimeout=10
TCPTimeout=10
KillWait=5
UnkillableStepTimeout=600
MinJobAge=3600
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

# MPI tells nodes apart by their host names.
START_NODE = """hostname "$LOLCATS_NODE" && mount --bind {home}/hosts /etc/hosts && exec slurmd "$@" """


def reason_to_skip():
    """Why no cluster can run here, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons have to be started by root"
    missing = [package for daemon, package in DAEMONS.items() if not shutil.which(daemon, path=SEARCH_PATH)]
    if missing:
        return "not installed: " + ", ".join(missing)
    if not os.access("/dev/shm", os.W_OK):
        return "/dev/shm cannot be written"
    if subprocess.run(["unshare", "--uts", "--mount", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return "nodes cannot be given host names: unshare --uts --mount is not permitted"
    return None


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition, seconds, what):
    """The first value of condition() that is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.1)


class Cluster:
    """`with Cluster() as cluster:` runs one; cluster.environment is what a command needs to talk to it."""

    def __init__(self, nodes=2, cpus=7):
        self.home = Path(tempfile.mkdtemp(prefix="lolcats-slurm-", dir="/dev/shm"))
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.environment = self._environment()
        self._pipe = start_guard(self.home)

    def _environment(self):
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "OMPI_"))}
        return keep | {
            "PATH": SEARCH_PATH, "SLURM_CONF": str(self.home / "slurm.conf"), "TMPDIR": str(self.home / "tmp"),
            # Files in it are named after the node, so that ranks of one node find one another and no others.
            "OMPI_MCA_btl_vader_backing_directory": str(self.home / "shm"),
            "OMPI_MCA_osc_sm_backing_directory": str(self.home / "shm"),
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
            "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader,tcp", "OMPI_MCA_btl_tcp_if_include": "lo",
            "OMPI_MCA_oob_tcp_if_include": "lo", "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}

    def __enter__(self):
        try:
            self._configure()
            self._start("munged", "--force", f"--key-file={self.home}/munge.key", f"--socket={self.home}/munge.socket",
                        f"--pid-file={self.home}/munged.pid", f"--log-file={self.home}/munged.log",
                        f"--seed-file={self.home}/munged.seed", "--num-threads=2")
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
            wait_for(self._all_idle, 60, "the nodes; see " + str(self.home))
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *problem):
        self.down()

    def _configure(self):
        self.home.chmod(0o755)  # munge asks for it
        for name in ("tmp", "shm", "controller"):
            (self.home / name).mkdir()
        (self.home / "plugstack.conf").touch()
        self._write("munge.key", os.urandom(1024), 0o600)
        host, ports = socket.gethostname().split(".")[0], free_ports(1 + len(self.nodes))
        lines = []
        for node, port in zip(self.nodes, ports[1:]):
            for kind in ("", ".tmp"):
                (self.home / (node + kind)).mkdir()
            lines.append(f"NodeName={node} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
                         f"Boards=1 SocketsPerBoard=1 CoresPerSocket={self.cpus} ThreadsPerCore=1 RealMemory=1000")
        text = CONFIGURATION.format(home=self.home, host=host, ports=ports, nodes="\n".join(lines))
        self._write("hosts", Path("/etc/hosts").read_bytes() + f"127.0.0.1 {' '.join(self.nodes)}\n".encode(), 0o644)
        self._write("slurm.conf", text.encode(), 0o644)

    def _write(self, name, content, mode):
        path = self.home / name
        path.write_bytes(content)
        path.chmod(mode)

    def _start(self, *command, **variables):
        """A daemon; it puts itself into the background once it is up."""
        done = subprocess.run(command, env=self.environment | variables, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        if done.returncode != 0:
            logs = "".join(path.read_text(errors="replace")[-1000:] for path in self.home.glob("*.log"))
            raise RuntimeError(f"{command[0]} does not start: {done.stdout}\n{logs}")

    def _all_idle(self):
        return self.command("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(self.nodes)

    def start_controller(self):
        self._start("slurmctld", "-f", str(self.home / "slurm.conf"))

    def kill_controller(self):
        self._kill(lambda process: process.name == "slurmctld")

    def start_node(self, node):
        self._start("unshare", "--uts", "--mount", "sh", "-c", START_NODE.format(home=self.home), "slurmd",
                    "-f", str(self.home / "slurm.conf"), "-N", node, LOLCATS_NODE=node)

    def kill_node(self, node):
        """As if its power failed: the daemon, and all that runs on it."""
        self._kill(lambda process: process.node == node)

    def kill_daemon(self, node):
        """What runs on the node goes on; returns the names of its processes."""
        self._kill(lambda process: process.node == node and process.name == "slurmd")
        return [process.name for process in self._on(node)]

    def freeze(self, node):
        """All that runs on a node stands still."""
        for process in self._on(node):
            process.send(signal.SIGSTOP)

    def thaw(self, node):
        """It goes on; returns the names of its processes."""
        processes = self._on(node)
        for process in processes:
            process.send(signal.SIGCONT)
        return [process.name for process in processes]

    def _on(self, node):
        return [process for process in processes_of(self.home) if process.node == node]

    def _kill(self, chosen):
        """Ends the processes of this cluster that are chosen, until there are none."""
        def end_them():
            victims = [process for process in processes_of(self.home) if chosen(process)]
            for process in victims:
                process.send(signal.SIGKILL)
            return not victims

        wait_for(end_them, 30, "killed processes to be gone")

    def command(self, *line, check=True, cwd=None, **variables):
        """Runs a command with the cluster's environment and `variables`, and returns what it printed."""
        done = subprocess.run(line, env=self.environment | variables, capture_output=True, text=True, timeout=60,
                              cwd=cwd, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"status {done.returncode}: {' '.join(line)}\n{done.stderr}")
        return done.stdout

    def is_cleared(self, job):
        """Whether no process of a job is left on the nodes that answer."""
        up = set(self.command("sinfo", "--noheader", "--responding", "--Node", "--format=%N").split())
        return not any(process.job == job and process.node in up for process in processes_of(self.home))

    def down(self):
        """Returns once no process is left and the directory is gone."""
        if self._pipe is None:
            return
        os.close(self._pipe)
        self._pipe = None
        wait_for(lambda: not self.home.exists(), 60, "the cluster to end")


class Process:
    """One of the cluster's, as /proc shows it."""

    def __init__(self, pid, environment, command):
        self.pid = pid
        self.name = Path(command[0].removesuffix(":")).name
        # The daemon of a node hands its own environment to those that watch over steps, but not to tasks.
        self.node = environment.get("SLURMD_NODENAME") or environment.get("LOLCATS_NODE")
        step = re.match(r"slurmstepd: \[(\d+)\.", command[0])  # which says it in its title
        self.job = step.group(1) if step else environment.get("SLURM_JOB_ID")

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def processes_of(home):
    mark = f"SLURM_CONF={home}/slurm.conf"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if mark in environment:
            variables = dict(line.split("=", 1) for line in environment if "=" in line)
            found.append(Process(int(entry.name), variables, command[:-1] or [""]))
    return found


# --- The guard ------------------------------------------------------------------------------------------------------

def start_guard(home):
    """Starts it, and returns the end of the pipe that keeps it waiting."""
    read_end, write_end = os.pipe()
    # The shell ends at once, so that the guard is nobody's child, whom a test runner would kill with the test.
    script = 'exec 3<&0; setsid "$@" <&3 3<&- >/dev/null 2>&1 &'
    subprocess.run(["/bin/sh", "-c", script, "sh", sys.executable, __file__, str(home)], stdin=read_end, check=True)
    os.close(read_end)
    return write_end


def guard(home):
    sys.stdin.buffer.read()  # until the test ends
    while victims := processes_of(home):
        for process in victims:
            process.send(signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
