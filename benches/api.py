"""How fast and how large the client of chat servers is: a judge's questions to
a server on this machine that answers at once, as many as a study of the
largest size asks; and how well it keeps to a rate.

    python3 benches/api.py --rekindle target/release/rekindle --work DIR > api-tables.md

Pairs of replies are made up; the stage `judge` asks about each pair in both
orders, writes every reply into the store's book, and reads them. Requests a
second are counted at the server, from the first to the last. Memory is the
resident set of the program as Linux tells it, every quarter of a second.
Standard library only; the server is another process with one thread.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

STUDY = """
rekindle = 1
name = "asked"
[api.local]
base-url = "{url}"
model = "judge"
concurrency = {concurrency}
requests-per-minute = {rate}
[judge.it]
kind = "api"
api = "local"
[rubric.pair]
{datasets}
[stage.judged]
kind = "judge"
replies = "ours"
against = "theirs"
judge = "it"
rubric = "pair"
"""


def serve(port, counts, times):
    """Answers every request at once; counts them."""

    async def connection(reader, writer):
        said = {"message": {"content": "Both are fair. " * 12 + "[[A]]"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 400, "completion_tokens": 60}
        body = json.dumps({"id": "chat-0123456789", "model": "judge-1", "choices": [said], "usage": usage})
        answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                now = time.time()
                if counts[0] == 0:
                    times[0] = now
                counts[0] += 1
                times[1] = now
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main():
        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


def study(folder, url, pairs, concurrency, rate):
    """A manifest with made-up pairs, so many of them."""
    (folder / "mirror").mkdir(parents=True, exist_ok=True)
    filler = "and then one counts what is left, which takes a while, " * 6
    texts = {
        "questions": lambda k: {"question_id": k, "category": "a", "turns": [f"Question {k}?"]},
        "ours": lambda k: {"question_id": k, "choices": [{"index": 0, "turns": [f"Ours {k}: {filler}"]}]},
        "theirs": lambda k: {"question_id": k, "choices": [{"index": 0, "turns": [f"Theirs {k}: {filler}"]}]},
    }
    datasets = ""
    for name, row in texts.items():
        text = "".join(json.dumps(row(k)) + "\n" for k in range(pairs)).encode()
        (folder / "mirror" / f"{name}.jsonl").write_bytes(text)
        kind = 'kind = "fetch-dataset"\nformat = "fastchat-jsonl"\nmask = false'
        if name != "questions":
            kind = 'kind = "fetch-replies"\nproblems = "questions"'
        datasets += (
            f'[dataset.{name}]\n{kind}\nurl = "http://127.0.0.1:1/{name}"\nmirror = "mirror"\n'
            f'mirror-path = "{name}.jsonl"\nsha256 = "{hashlib.sha256(text).hexdigest()}"\n'
        )
    text = STUDY.format(url=url, concurrency=concurrency, rate=rate, datasets=datasets)
    (folder / "m.toml").write_text(text)


def resident(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def ask(rekindle, folder, pairs, concurrency, rate):
    """Requests a second, seconds of the program, CPU seconds, and (answered, MB) over time."""
    port = multiprocessing.Value("i", 0)
    counts = multiprocessing.Array("l", 1, lock=False)
    times = multiprocessing.Array("d", 2, lock=False)
    server = multiprocessing.Process(target=serve, args=(port, counts, times), daemon=True)
    server.start()
    while port.value == 0:
        time.sleep(0.01)
    study(folder, f"http://127.0.0.1:{port.value}/v1", pairs, concurrency, rate)
    began = time.perf_counter()
    process = subprocess.Popen(
        [rekindle, "run", "m.toml", "--device", "cpu"],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    seen = []
    while process.poll() is None:
        size = resident(process.pid)
        if size:
            seen.append((counts[0], size))
        time.sleep(0.25)
    wall = time.perf_counter() - began
    if process.returncode != 0:
        sys.exit(process.stderr.read().decode()[-2000:])
    server.terminate()
    asked = counts[0]
    return (asked - 1) / (times[1] - times[0]), wall, asked, seen


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rekindle", required=True)
    arguments.add_argument("--work", required=True, type=Path, help="a folder to be made")
    arguments.add_argument("--requests", type=int, default=100_000)
    arguments.add_argument("--rates", type=int, nargs="*", default=[600, 6000, 12000])
    given = arguments.parse_args()
    rekindle = str(Path(given.rekindle).resolve())
    given.work.mkdir(parents=True)

    print("| requests | requests/s | whole run | least memory while asking | most |")
    print("|---:|---:|---:|---:|---:|", flush=True)
    for requests in (given.requests // 10, given.requests):
        folder = given.work / f"all-{requests}"
        rate, wall, asked, seen = ask(rekindle, folder, requests // 2, 16, 0)
        asking = [size for count, size in seen if 0 < count < asked]
        least, most = min(asking), max(asking)
        print(f"| {asked:,} | {rate:,.0f} | {wall:.1f} s | {least:.0f} MB | {most:.0f} MB |", flush=True)
    print("\n| answered | resident |\n|---:|---:|")
    for share in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0):
        count, size = min(seen, key=lambda one: abs(one[0] - share * asked))
        print(f"| {count:,} | {size:.0f} MB |")

    print("\n| requests a minute allowed | counted | of what is allowed |\n|---:|---:|---:|", flush=True)
    for allowed in given.rates:
        folder = given.work / f"rate-{allowed}"
        rate, *_ = ask(rekindle, folder, max(10, allowed // 6), 16, allowed)
        print(f"| {allowed:,} | {60 * rate:,.1f} | {100 * 60 * rate / allowed:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
