"""How long the runner itself takes: starting, planning, finding nothing to do,
storing small results, hashing, going on after a kill, looking for garbage; beside dvc, snakemake and
redun on the common graph of N stages: one input of 1 MB, N/2 stages that read
it, N/2 that read one of those, each `cat in > out`.

    python3 benches/runner.py --rekindle target/release/rekindle \
        --peers VENV --b3sum b3sum --work DIR > runner-tables.md

VENV holds dvc 3.67.1, snakemake 9.27.1 and redun 0.27.0; without it, or without
b3sum, those rows are left out. Every figure is the median of `--repeats` runs,
the commands of a table taking turns, wall seconds first, then user and system
time and the largest resident set of the process or a child of it. Files are in
the page cache. Needs Linux and Python 3.11; standard library only.
"""

import argparse
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path


def measure(command, cwd, ok=(0,)):
    """Wall seconds, user + system seconds, and peak memory in MB of a command."""
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ok:
        sys.exit(f"{command} in {cwd}: {process.returncode}\n{said.decode()[-2000:]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def table(title, rows, repeats):
    """Measures rows of (name, command, folder, what to do before, bar) in turns."""
    taken = [[] for _ in rows]
    for _ in range(repeats):
        for row, times in zip(rows, taken):
            if row[3]:
                row[3]()
            times.append(measure(row[1], row[2]))
    print(f"\n### {title}\n\n| | wall | user + sys | memory | bar |\n|---|---:|---:|---:|---|")
    for row, times in zip(rows, taken):
        wall, cpu, memory = (statistics.median(column) for column in zip(*times))
        least = min(time[0] for time in times)
        print(
            f"| {row[0]} | {show(wall)} (least {show(least)}) | {show(cpu)} "
            f"| {memory:.0f} MB | {row[4]} |",
            flush=True,
        )


def show(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def chains(n, last="true"):
    """n commands in chains of ten."""
    lines = ['rekindle = 1\nname = "chains"\n']
    for chain in range(n // 10):
        for link in range(10):
            tail = f"; {last}" if chain * 10 + link == n - 1 else ""
            lines.append(f'[stage.c{chain}-{link}]\nkind = "command"')
            lines.append(f'run = ["sh", "-c", "echo {chain} {link} > out/x/x{tail}"]')
            lines.append('outputs = ["x"]')
            if link:
                lines.append(f'inputs = {{ p = "c{chain}-{link - 1}.x" }}')
            lines.append("")
    return "\n".join(lines)


def splits(n):
    """n stages that run inside the program: each deals two of eight problems to a set."""
    lines = ['rekindle = 1\nname = "splits"\n', '[dataset.words]\nkind = "word-problems"']
    lines.append('problems = { all = 8 }\nheld-out = []\nprotocol = "p"\n')
    lines.append('[protocol.p]\nquestion = "Q: {question} A:"\nfeedback = "F"\nrefined-marker = "refined:"')
    lines.append('reply = "answer {answer}"\ncorrect = "good"\nincorrect = "bad"\nanswer = "number"\n')
    for i in range(n):
        lines.append(f'[dataset.s{i}]\nkind = "split"\nproblems = "words.all"')
        lines.append(f"sets = {{ x{i} = 2 }}\n")
    return "\n".join(lines)


def common(n):
    """The common graph."""
    lines = ['rekindle = 1\nname = "common"\n', '[stage.input]\nkind = "command"']
    lines.append('run = ["sh", "-c", "head -c 1000000 /dev/zero > out/files/out"]\n')
    for i in range(n // 2):
        for name, of in ((f"a{i}", "input"), (f"b{i}", f"a{i}")):
            lines.append(f'[stage.{name}]\nkind = "command"\ninputs = {{ it = "{of}" }}')
            # The echo keeps equal contents from being one file.
            lines.append(f'env = {{ I = "{i}" }}')
            lines.append('run = ["sh", "-c", "cat in/it/out > out/files/out"]\n')
    return "\n".join(lines)


def common_of_peers(folder, n):
    """The common graph for dvc, snakemake and redun."""
    numbers = ", ".join(str(i) for i in range(n // 2))
    for name in ("dvc", "snakemake", "redun"):
        fresh(folder / name).joinpath("in").write_bytes(b"\0" * 1_000_000)
    (folder / "dvc" / "dvc.yaml").write_text(
        f"""stages:
  a:
    matrix: {{ i: [{numbers}] }}
    cmd: cat in > a${{item.i}}
    deps: [in]
    outs: ["a${{item.i}}"]
  b:
    matrix: {{ i: [{numbers}] }}
    cmd: cat a${{item.i}} > b${{item.i}}
    deps: ["a${{item.i}}"]
    outs: ["b${{item.i}}"]
"""
    )
    (folder / "snakemake" / "Snakefile").write_text(
        f"""rule all:
    input: expand("b{{i}}", i=range({n // 2}))
rule a:
    input: "in"
    output: "a{{i}}"
    shell: "cat {{input}} > {{output}}"
rule b:
    input: "a{{i}}"
    output: "b{{i}}"
    shell: "cat {{input}} > {{output}}"
"""
    )
    (folder / "redun" / "wf.py").write_text(
        """from redun import File, task
import subprocess

redun_namespace = "bench"


@task()
def copy(source: File, to: str) -> File:
    subprocess.run(["sh", "-c", f"cat {source.path} > {to}"], check=True)
    return File(to)


@task()
def main(n: int = 10):
    return [copy(copy(File("in"), f"a{i}"), f"b{i}") for i in range(n // 2)]
"""
    )


def starting(bench):
    rows = [("rekindle --version", [bench.rekindle, "--version"], bench.work, None, "≤ 10 ms")]
    for peer in bench.peers:
        rows.append((f"{peer} --version", [bench.peers[peer], "--version"], bench.work, None, ""))
    table("Starting", rows, bench.repeats)


def project(bench, n):
    """Planning, the first run, and finding nothing to do, with n commands."""
    folder = fresh(bench.work / f"chains-{n}")
    (folder / "m.toml").write_text(chains(n))
    (folder / "edited.toml").write_text(chains(n, last="false; true"))
    us = bench.rekindle
    plan = "≤ 200 ms" if n == 10_000 else ""
    table(
        f"{n:,} commands, empty store",
        [("plan", [us, "plan", "m.toml"], folder, None, plan)],
        bench.repeats,
    )
    wall, cpu, _ = measure([us, "run", "-q", "m.toml"], folder)
    print(f"\nFirst run: {show(wall)}, {show(cpu)} user + sys: **{n / wall:.0f} commands/s** (bar: ≥ 300).")
    time.sleep(3)  # files are spoken of when they have been at rest
    took, _, _ = measure([us, "run", "-q", "m.toml"], folder)
    print(f"Second run, which finds nothing to do and keeps that: {show(took)}.")
    bars = {1000: "≤ 25 ms", 10_000: "≤ 120 ms, ≤ 150 MB", 100_000: "≤ 1.5 s"}
    why = "≤ 50 ms" if n == 10_000 else ""
    standings = folder / ".rekindle" / "standings"
    kept = folder / "kept"
    shutil.copytree(standings, kept)

    def forget():
        shutil.rmtree(standings, ignore_errors=True)

    def remember():
        if not standings.exists():
            shutil.copytree(kept, standings)

    table(
        f"{n:,} commands, all stored",
        [
            ("run", [us, "run", "m.toml"], folder, remember, bars[n]),
            ("status", [us, "status", "m.toml"], folder, remember, bars[n]),
            ("plan", [us, "plan", "m.toml"], folder, remember, ""),
            ("why, of a stored step", [us, "why", "m.toml", "c7-3"], folder, remember, why),
            ("why, of an edited step", [us, "why", "edited.toml", f"c{n // 10 - 1}-9"], folder, None, why),
            ("run without what was kept", [us, "run", "m.toml"], folder, forget, ""),
            ("plan without what was kept", [us, "plan", "m.toml"], folder, forget, ""),
        ],
        bench.repeats,
    )
    remember()


def small(bench, n=1000):
    """Durable stages per second inside the process."""
    folder = fresh(bench.work / "splits")
    (folder / "m.toml").write_text(splits(n))
    rates = []
    for _ in range(3):
        shutil.rmtree(folder / ".rekindle", ignore_errors=True)
        wall, cpu, _ = measure([bench.rekindle, "run", "-q", "m.toml"], folder)
        rates.append((n / wall, cpu / n))
    rate, cpu = (statistics.median(column) for column in zip(*rates))
    print(f"\n### Small stages\n\n{n:,} `split` stages, each durable: **{rate:.0f} stages/s** "
          f"(median of 3; {cpu * 1000:.2f} ms user + sys each; bar: ≥ 2,000).", flush=True)


def killed(bench, n=10_000):
    """From the start of a run after kill -9 to its first new work."""
    folder = bench.work / f"chains-{n}"
    (folder / "long.toml").write_text(chains(n, last="sleep 1000"))
    title = f"c{n // 10 - 1}-9 starts"

    def until_work():
        began = time.perf_counter()
        process = subprocess.Popen(
            [bench.rekindle, "run", "long.toml"], cwd=folder, stderr=subprocess.PIPE, text=True
        )
        for line in process.stderr:
            if line.startswith(title):
                break
        wall = time.perf_counter() - began
        process.send_signal(signal.SIGKILL)
        process.wait()
        return wall

    until_work()
    times = [until_work() for _ in range(bench.repeats)]
    print(f"\n### After kill -9\n\n{n:,} stages, one of them killed with the runner: "
          f"{show(statistics.median(times))} from the command to the start of that one "
          f"(least {show(min(times))}; bar: no-op + 50 ms).", flush=True)


def collecting(bench, n):
    """`gc --dry-run` in a store of n objects that nothing refers to, the most work for each."""
    store = fresh(bench.work / "garbage")
    (store / "VERSION").write_text("1\n")
    for shelf in range(256):
        (store / "objects" / f"{shelf:02x}").mkdir(parents=True)
    for i in range(n):
        name = hashlib.sha256(str(i).encode()).hexdigest()
        (store / "objects" / name[:2] / name).touch()
    command = [bench.rekindle, "gc", "--dry-run", "-q", "--store", store]
    rows = [
        ("all young", command, bench.work, None, ""),
        ("all would go", [*command, "--older-than", "0"], bench.work, None, "≤ 5 s for a million"),
    ]
    table(f"`gc --dry-run`, {n:,} objects", rows, bench.repeats)
    shutil.rmtree(store)


def hashing(bench):
    """One file of 4 GiB in the store, read again, beside b3sum."""
    folder = fresh(bench.work / "large")
    (folder / "m.toml").write_text(
        'rekindle = 1\nname = "large"\n[stage.large]\nkind = "command"\n'
        'run = ["sh", "-c", "yes rekindle | head -c 4294967296 > out/files/x"]\n'
    )
    measure([bench.rekindle, "run", "-q", "m.toml"], folder)
    shelves = (folder / ".rekindle" / "objects").iterdir()
    large = next(path for shelf in shelves for path in shelf.iterdir())
    rows = [("rekindle run --verify", [bench.rekindle, "run", "-q", "--verify", "m.toml"], folder, None, "≥ 0.9 × b3sum")]
    if bench.b3sum:
        rows.append(("b3sum", [bench.b3sum, large], folder, None, ""))
        rows.append(("b3sum --no-mmap", [bench.b3sum, "--no-mmap", large], folder, None, ""))
    table("Hashing 4 GiB", rows, bench.repeats)
    shutil.rmtree(folder)


def beside(bench, n):
    """The common graph, ours and the peers'."""
    folder = fresh(bench.work / f"common-{n}")
    fresh(folder / "rekindle").joinpath("m.toml").write_text(common(n))
    common_of_peers(folder, n)
    us = bench.rekindle
    first, again = [], []

    def add(name, command, note=""):
        home = folder / name.split()[0]
        wall, cpu, _ = measure(command, home)
        first.append(f"| {name} | {show(wall)} | {show(cpu)} | {note} |")
        again.append((name, command, home, None, ""))

    add("rekindle run", [us, "run", "m.toml"])
    time.sleep(3)
    measure([us, "run", "m.toml"], folder / "rekindle")
    if "snakemake" in bench.peers:
        add("snakemake -c2", [bench.peers["snakemake"], "-c2", "-q", "all"])
    if "redun" in bench.peers:
        add("redun run", [bench.peers["redun"], "run", "wf.py", "main", "--n", str(n)])
    if "dvc" in bench.peers:
        home = folder / "dvc"
        subprocess.run(["git", "init", "-q"], cwd=home, check=True)
        measure([bench.peers["dvc"], "init", "-q"], home)
        add("dvc repro", [bench.peers["dvc"], "repro", "-q"], "one stage at a time")
    again.append(("rekindle status", [us, "status", "m.toml"], folder / "rekindle", None, ""))
    if "dvc" in bench.peers:
        again.append(("dvc status", [bench.peers["dvc"], "status", "-q"], folder / "dvc", None, ""))
    print(f"\n### Common graph, N = {n:,}, first run (once)\n\n| | wall | user + sys | |\n|---|---:|---:|---|")
    print("\n".join(first), flush=True)
    table(f"Common graph, N = {n:,}, nothing to do", again, bench.repeats)
    shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rekindle", required=True)
    parser.add_argument("--peers", type=Path, help="a virtual environment")
    parser.add_argument("--b3sum")
    parser.add_argument("--work", type=Path, required=True, help="a folder to work in; it is emptied")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--common", type=int, nargs="*", default=[200])
    parser.add_argument("--only", nargs="*", default=["start", "project", "small", "kill", "gc", "hash", "peers"])
    parser.add_argument("--objects", type=int, default=1_000_000)
    bench = parser.parse_args()
    bench.rekindle = str(Path(bench.rekindle).resolve())
    names = ("dvc", "snakemake", "redun") if bench.peers else ()
    bench.peers = {name: str(bench.peers.resolve() / "bin" / name) for name in names}
    bench.work.mkdir(parents=True, exist_ok=True)
    if "start" in bench.only:
        starting(bench)
    if "project" in bench.only:
        for n in bench.sizes:
            project(bench, n)
    if "kill" in bench.only and 10_000 in bench.sizes:
        killed(bench)
    if "small" in bench.only:
        small(bench)
    if "gc" in bench.only:
        collecting(bench, bench.objects)
    if "hash" in bench.only:
        hashing(bench)
    if "peers" in bench.only:
        for n in bench.common:
            beside(bench, n)


if __name__ == "__main__":
    main()
