"""Kills a rank of `lwm train` at random moments until the run has survived enough of it.

A reference run of two ranks is never disturbed. Then the same recipe runs in other folders, and a
random rank gets kill -9 at a random moment: while starting, training, writing or deleting a
checkpoint. After each kill the other rank must end within ten seconds; the next start must resume
from the last checkpoint that was announced, or a later one, without meeting a damaged one. Whoever
finishes must have the reference's metrics and, byte for byte, its weights and optimizer state.

LWM_BINARY names the program; the seed can be given as the first argument.
"""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

KILLS = 30
SECONDS_TO_END = 10
LWM = os.environ.get("LWM_BINARY", "build/lwm")
MOMENTS = ["training", "training", "writing", "writing", "deleting", "starting"]
RECIPE = """
[model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 64
[data]
train = ["{corpus}"]
{tokenizer}
row_tokens = 64
[parallel]
mesh = "{mesh}"
[train]
run_folder = "{folder}"
steps = {steps}
rows_per_step = 2
checkpoint_every = 2
checkpoint_keep = {keep}
"""


def write_corpus(path, seed):
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(300)]
    documents = [" ".join(rng.choices(words, k=40)) + ".\n" for _ in range(200)]
    path.write_text("\n".join(documents))


started = []  # launchers, each with a process group of its own


def start(recipe):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_mpi_yield_when_idle="1")
    command = ["mpirun", "--allow-run-as-root", "--bind-to", "none", "--oversubscribe", "-np", "2",
               LWM, "train", "--config", str(recipe), "--threads", "1"]
    started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE, text=True, start_new_session=True))
    return started[-1]


def end_all():
    """After a failure nothing of ours may go on running."""
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


class Output:
    """Reads a run's progress lines in the background."""

    def __init__(self, process):
        self.lines = []
        self.begun = threading.Event()  # resumed or started from random weights
        self.thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self.thread.start()

    def _read(self, stream):
        for line in stream:
            self.lines.append(line.rstrip())
            if line.startswith(("starting from", "resuming from")):
                self.begun.set()
        self.begun.set()

    def last_saved(self):
        steps = [int(m[1]) for m in map(re.compile(r"saved .*step_(\d+)$").match, self.lines) if m]
        return max(steps, default=0)

    def resumed(self):
        steps = [int(m[1]) for m in map(re.compile(r"resuming from .*: step (\d+) of").match,
                                        self.lines) if m]
        return steps[0] if steps else 0


def ranks_of(process):
    """Process ids of the ranks: the launcher's children that run the program."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = status.read_text().rsplit(")", 1)
        except OSError:
            continue
        if int(rest.split()[1]) == process.pid and name.split("(", 1)[1] == pathlib.Path(LWM).name:
            found.append(int(status.parent.name))
    return sorted(found)


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_moment(process, output, folder, moment, rng):
    """Returns at the chosen moment, or when the run is over."""
    if moment == "starting":
        time.sleep(rng.uniform(0.05, 1.0))
        return
    output.begun.wait()
    time.sleep(rng.uniform(0, 0.5))
    if moment == "training":
        return
    wanted = ".writing_" if moment == "writing" else ".deleted_"
    while process.poll() is None:
        try:
            if any(name.startswith(wanted) for name in os.listdir(folder / "checkpoints")):
                break
        except FileNotFoundError:
            pass
        time.sleep(0.0005)
    if moment == "writing":
        time.sleep(rng.uniform(0, 0.03))


def kill_one_rank(process, rng):
    """Kills; returns false if there was nobody left. Fails if the others outlive the limit."""
    ranks = ranks_of(process)
    if not ranks:
        return False
    try:
        os.kill(rng.choice(ranks), signal.SIGKILL)
    except ProcessLookupError:
        return False
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        if process.poll() is not None and not any(map(is_alive, ranks)):
            return True
        time.sleep(0.01)
    sys.exit(f"FAILED: ranks {[r for r in ranks if is_alive(r)]} outlived a peer by "
             f"{SECONDS_TO_END} s")


def require(condition, message, output=None):
    if not condition:
        if output:
            print("\n".join(output.lines[-30:]))
        sys.exit("FAILED: " + message)


def metrics_of(folder):
    names = ["step", "tokens", "loss", "text_loss", "lr", "grad_norm"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in names} for line in lines]


def require_same(folder, reference, steps):
    require(metrics_of(folder) == metrics_of(reference), f"metrics of {folder} differ")
    ours, theirs = (f / f"checkpoints/step_{steps}" for f in (folder, reference))
    names = sorted(str(p.relative_to(theirs)) for p in theirs.rglob("*.safetensors"))
    require(len(names) == 3, f"unexpected files {names}")
    for name in names:
        require((ours / name).read_bytes() == (theirs / name).read_bytes(), f"{ours / name} differs")


def write_recipe(place, name, steps, mesh, tokenizer, keep=2):
    recipe = place / f"{name}.toml"
    recipe.write_text(RECIPE.format(corpus=place / "corpus.txt", tokenizer=tokenizer, mesh=mesh,
                                    folder=place / name, steps=steps, keep=keep))
    return recipe


def make_reference(place, steps, mesh):
    process = start(write_recipe(place, "reference", steps, mesh, "train_tokenizer_vocab = 300"))
    output = Output(process)
    require(process.wait() == 0, "the reference run failed", output)
    shutil.copy(place / "reference/tokenizer.model", place / "tokenizer.model")


class Campaign:
    """Disturbed runs, one after another, until there were enough kills."""

    def __init__(self, place, steps, mesh, seed):
        self.place, self.steps, self.mesh = place, steps, mesh
        self.rng = random.Random(seed)
        self.kills = {moment: 0 for moment in MOMENTS}
        self.leftovers = 0  # kills that left a half-written or half-deleted folder

    def finish_one_run(self, number):
        folder = self.place / f"killed_{number}"
        recipe = write_recipe(self.place, folder.name, self.steps, self.mesh,
                              f'tokenizer = "{self.place}/tokenizer.model"', 1 + number % 2)
        saved = 0
        while True:
            process = start(recipe)
            output = Output(process)
            killed = sum(self.kills.values()) < KILLS and self._disturb(process, output, folder)
            code = process.wait()
            output.thread.join()
            require(not any("damaged" in line for line in output.lines), "met damage", output)
            if output.resumed() or output.last_saved():
                require(output.resumed() >= saved, f"saved {saved}, resumed {output.resumed()}",
                        output)
            saved = max(saved, output.last_saved())
            if code == 0:
                break
            require(killed, f"ended with {code} without being killed", output)
        require_same(folder, self.place / "reference", self.steps)

    def _disturb(self, process, output, folder):
        moment = MOMENTS[sum(self.kills.values()) % len(MOMENTS)]
        wait_for_moment(process, output, folder, moment, self.rng)
        if not kill_one_rank(process, self.rng):
            return False
        self.kills[moment] += 1
        link = folder / "model"
        require(link.exists() or not link.is_symlink(), f"{link} leads nowhere", output)
        checkpoints = folder / "checkpoints"
        if checkpoints.exists():
            self.leftovers += any(n.startswith(".") for n in os.listdir(checkpoints))
        return True


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 1000000
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lwm_kill_") as name:
        place = pathlib.Path(name)
        write_corpus(place / "corpus.txt", 1)
        steps, mesh = 80, random.Random(seed).choice(["1,1,1,2", "1,2,1,1"])
        make_reference(place, steps, mesh)
        campaign = Campaign(place, steps, mesh, seed)
        runs = 0
        while sum(campaign.kills.values()) < KILLS:
            campaign.finish_one_run(runs)
            runs += 1
        require(campaign.leftovers > 0, "no kill ever hit a checkpoint")
        print(f"seed {seed}, mesh {mesh}: {runs} runs survived {campaign.kills}, "
              f"{campaign.leftovers} of them inside a checkpoint, "
              f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    try:
        main()
    finally:
        end_all()
