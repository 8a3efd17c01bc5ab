#!/usr/bin/env python3
"""The engine against torch + transformers, and llama.cpp, on the same work.

    cargo bench --no-run --no-default-features -F flex --bench engine
    python benches/engine.py --ours target/release/deps/engine-* --gsm8k train.jsonl [--llama PYTHON]
                             [--only NAMES] [--rounds 5] [--threads 2] [--write results/bench/engine.md]

Every process is fresh, measures one piece of work and says so in a line of JSON; those of the
contestants take turns. Weights (random, by this script) and tokens are the same for all, and so are the
losses and greedy replies, which are compared: a faster run with another result would be no run at all.
`train.jsonl` is GSM8K's, for the lengths of its questions and solutions (3.6 characters to a token).
Runs with torch and transformers; `--llama` is a Python with llama-cpp-python and gguf.
"""

import argparse, json, os, platform, random, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

SHAPES = {  # vocabulary, width, feed-forward, blocks, heads
    "1M": (512, 128, 384, 4, 4),
    "5.4M": (512, 256, 768, 6, 8),
}


def config(shape, context=1024):
    v, d, ff, layers, heads = SHAPES[shape]
    return dict(
        model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=v, hidden_size=d, intermediate_size=ff,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads, head_dim=d // heads,
        max_position_embeddings=context, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
        hidden_act="silu", attention_bias=False, mlp_bias=False, torch_dtype="float32",
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )


# ---- contestants: each reads WORK.json and says {seconds, tokens, losses | texts, peak_kib} ----


def torch_model(work):
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(work["threads"])
    return LlamaForCausalLM.from_pretrained(work["model"], dtype=torch.float32, attn_implementation="sdpa")


def torch_train(work):
    import torch

    model = torch_model(work)
    model.train()
    adam = torch.optim.AdamW(model.parameters(), lr=work["rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    seconds, losses, tokens = [], [], []
    rows, size = work["rows"], work["batch"]
    for at in range(0, len(rows), size):
        step = rows[at : at + size]
        started = time.perf_counter()
        targets = sum(len(row) - 1 for row in step)
        adam.zero_grad(set_to_none=True)
        total = 0.0
        if work.get("padding"):
            width = max(len(row) for row in step)
            ids = torch.tensor([row + [0] * (width - len(row)) for row in step])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in step])
            labels = ids.masked_fill(mask == 0, -100)
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=targets, use_cache=False).loss
            loss.backward()
            total = loss.item()
        elif work.get("packing"):
            # As DataCollatorWithFlattening has it: one row, positions that start again.
            for part in parts(step, work["room"]):
                ids = torch.tensor([[i for row in part for i in row]])
                positions = torch.tensor([[p for row in part for p in range(len(row))]])
                labels = torch.tensor([[-100 if p == 0 else i for row in part for p, i in enumerate(row)]])
                loss = model(input_ids=ids, position_ids=positions, labels=labels, num_items_in_batch=targets, use_cache=False).loss
                loss.backward()
                total += loss.item()
        else:
            ids = torch.tensor(step)
            loss = model(input_ids=ids, labels=ids, num_items_in_batch=targets, use_cache=False).loss
            loss.backward()
            total = loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        seconds.append(time.perf_counter() - started)
        losses.append(total)
        tokens.append(targets)
    return dict(seconds=seconds, losses=losses, tokens=tokens)


def parts(rows, room):
    """First fit of the longest first."""
    bins = []
    for row in sorted(rows, key=len, reverse=True):
        for part in bins:
            if sum(map(len, part)) + len(row) <= room:
                part.append(row)
                break
        else:
            bins.append([row])
    return bins


def torch_generate(work):
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class EndAt(LogitsProcessor):
        """Lets each reply end where it is to end."""

        def __init__(self, starts, lengths):
            self.ends = torch.tensor(lengths) + starts

        def __call__(self, ids, scores):
            scores[:, 2] = -float("inf")
            over = ids.shape[1] >= self.ends
            scores[over] = -float("inf")
            scores[over, 2] = 0.0
            return scores

    model = torch_model(work).eval()
    rows, lengths, size = work["rows"], work["lengths"], work["batch"]
    same = len(set(lengths)) == 1

    def reply(prompts, lengths):
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        more = dict(min_new_tokens=lengths[0]) if same else dict(logits_processor=LogitsProcessorList([EndAt(width, lengths)]))
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max(lengths) + (not same), do_sample=False,
            pad_token_id=0, eos_token_id=2, **more)
        return [row[width : width + n].tolist() for row, n in zip(out, lengths)]

    with torch.inference_mode():
        reply(rows[:1], [2])
        started = time.perf_counter()
        texts = []
        for at in range(0, len(rows), size):
            texts += reply(rows[at : at + size], lengths[at : at + size])
        seconds = time.perf_counter() - started
    return dict(seconds=[seconds], tokens=[sum(map(len, texts))], texts=texts)


def llama_generate(work):
    from llama_cpp import Llama

    model = Llama(model_path=str(Path(work["model"]) / "model.gguf"), n_ctx=1024, n_threads=work["threads"],
                  n_threads_batch=work["threads"], verbose=False, use_mmap=False, logits_all=False)
    texts, seconds = [], 0.0
    for i, (prompt, length) in enumerate([(work["rows"][0], 2)] + list(zip(work["rows"], work["lengths"]))):
        model.reset()
        started = time.perf_counter()
        text = []
        for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
            text.append(int(token))
            if len(text) == length:
                break
        if i > 0:
            seconds += time.perf_counter() - started
            texts.append(text)
    return dict(seconds=[seconds], tokens=[sum(map(len, texts))], texts=texts)


def write_gguf(folder):
    """The weights of a folder as llama.cpp reads them: rows of queries and keys in its order."""
    import gguf, numpy
    from safetensors.numpy import load_file

    c = json.loads((folder / "config.json").read_text())
    w = load_file(folder / "model.safetensors")
    out = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    heads, dim = c["num_attention_heads"], c["head_dim"]
    out.add_context_length(c["max_position_embeddings"]); out.add_embedding_length(c["hidden_size"])
    out.add_block_count(c["num_hidden_layers"]); out.add_feed_forward_length(c["intermediate_size"])
    out.add_head_count(heads); out.add_head_count_kv(heads); out.add_rope_dimension_count(dim)
    out.add_layer_norm_rms_eps(c["rms_norm_eps"]); out.add_rope_freq_base(c["rope_theta"])
    out.add_file_type(0); out.add_vocab_size(c["vocab_size"])
    out.add_tokenizer_model("llama")
    out.add_token_list([b"<unk>", b"<s>", b"</s>"] + [f"t{i}".encode() for i in range(3, c["vocab_size"])])
    out.add_token_scores([0.0] * c["vocab_size"]); out.add_token_types([2, 3, 3] + [1] * (c["vocab_size"] - 3))
    out.add_bos_token_id(1); out.add_eos_token_id(2)
    permuted = lambda x: x.reshape(heads, 2, dim // 2, -1).swapaxes(1, 2).reshape(x.shape)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    out.add_tensor("token_embd.weight", w["model.embed_tokens.weight"])
    out.add_tensor("output_norm.weight", w["model.norm.weight"])
    out.add_tensor("output.weight", w["lm_head.weight"])
    for i in range(c["num_hidden_layers"]):
        for theirs, its in names.items():
            x = w[f"model.layers.{i}.{theirs}.weight"]
            x = permuted(x) if its in ("attn_q", "attn_k") else x
            out.add_tensor(f"blk.{i}.{its}.weight", numpy.ascontiguousarray(x, dtype=numpy.float32))
    out.write_header_to_file(); out.write_kv_data_to_file(); out.write_tensors_to_file(); out.close()


PEERS = {("torch", "train"): torch_train, ("torch", "generate"): torch_generate, ("llama.cpp", "generate"): llama_generate}


# ---- the works ----


def lengths_of(path, n, rng):
    rows = [json.loads(line) for line in open(path)]
    rng.shuffle(rows)
    tokens = lambda text: max(2, round(len(text) / 3.6))
    return [(tokens(r["question"]) + 1, tokens(r["answer"]) + 1) for r in rows[:n]]


def works(args, folder):
    rng = random.Random(7)
    # Some tokens are much more frequent than others, and each depends on the one before it.
    weights = [1 / (i + 2) for i in range(509)]

    def text(n):
        out = [1]
        while len(out) < n:
            token = 3 + rng.choices(range(509), weights)[0]
            out.append(token if rng.random() < 0.5 else 3 + (out[-1] * 7 + 11) % 509)
        return out

    found = []
    for shape, batch, steps in [("1M", 32, 8), ("5.4M", 16, 6)]:
        base = dict(model=str(folder / shape), threads=args.threads, rate=1e-3)
        found.append((f"train {shape}", dict(base, what="train", batch=batch, rows=[text(129) for _ in range(batch * steps)]),
                      {"torch": {}}))
        mixed = [q + a for q, a in lengths_of(args.gsm8k, 4000, rng) if 20 <= q + a <= 200][: batch * steps]
        rows = [text(n) for n in mixed]
        found.append((f"train {shape}, GSM8K's lengths", dict(base, what="train", batch=batch, rows=rows, room=2048),
                      {"torch, padded": dict(padding=True), "torch, packed": dict(packing=True)}))
    base = dict(model=str(folder / "5.4M"), threads=args.threads, what="generate")
    found.append(("generate 16 x 128", dict(base, batch=16, rows=[text(64) for _ in range(16)], lengths=[128] * 16), {"torch": {}}))
    pairs = [p for p in lengths_of(args.gsm8k, 400, rng) if sum(p) < 1000][:256]
    found.append(("generate 256 of GSM8K's lengths", dict(base, batch=16, rows=[text(q) for q, _ in pairs], lengths=[a for _, a in pairs]),
                  {"torch": {}}))
    one = dict(base, batch=1, rows=[text(64) for _ in range(4)], lengths=[128] * 4)
    found.append(("generate one at a time", one, {"torch": {}, **({"llama.cpp": {}} if args.llama else {})}))
    return found


def median(xs):
    return statistics.median(xs)


def speed(said):
    """Tokens a second; of a training the median step behind the first two."""
    if "losses" in said:
        return median([t / s for t, s in zip(said["tokens"], said["seconds"])][2:])
    return said["tokens"][0] / said["seconds"][0]


def agreement(ours, theirs):
    if "losses" in ours:
        worst = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"]))
        return f"loss {ours['losses'][-1]:.4f}, off by {worst:.1e} at most"
    same = sum(a == b for a, b in zip(ours["texts"], theirs["texts"]))
    return f"{same} of {len(ours['texts'])} replies the same"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours"); p.add_argument("--gsm8k"); p.add_argument("--llama"); p.add_argument("--only", nargs="*")
    p.add_argument("--rounds", type=int, default=5); p.add_argument("--threads", type=int, default=2)
    p.add_argument("--write"); p.add_argument("--peer", nargs=2); p.add_argument("--alone", action="store_true")
    args = p.parse_args()
    if args.peer:
        name, path = args.peer
        if name == "gguf":
            return write_gguf(Path(path))
        work = json.loads(Path(path).read_text())
        said = PEERS[name.split(",")[0], work["what"]](work)
        said["peak_kib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(said))
        return

    import torch, transformers

    lines = []
    with tempfile.TemporaryDirectory() as space:
        space = Path(space)
        for shape in SHAPES:
            torch.manual_seed(3)
            wanted = transformers.LlamaConfig(**config(shape))
            transformers.LlamaForCausalLM(wanted).save_pretrained(space / shape)
            (space / shape / "config.json").write_text(json.dumps(config(shape)))
            if args.llama:
                subprocess.run([args.llama, __file__, "--peer", "gguf", space / shape], check=True)
        env = dict(os.environ, TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
        for name, work, peers in works(args, space):
            if args.only and not any(wanted in name for wanted in args.only):
                continue
            runs = {"rekindle": ([args.ours], work)}
            for peer, more in {} if args.alone else peers.items():
                python = args.llama if peer == "llama.cpp" else sys.executable
                runs[peer] = ([python, __file__, "--peer", peer], dict(work, **more))
            said = {who: [] for who in runs}
            for _ in range(args.rounds):
                for who, (command, its) in runs.items():
                    path = space / "work.json"
                    path.write_text(json.dumps(its))
                    out = subprocess.run(command + [str(path)], env=env, capture_output=True, text=True)
                    if out.returncode:
                        sys.exit(f"{who}: {out.stderr[-2000:]}")
                    said[who].append(json.loads(out.stdout.splitlines()[-1]))
            ours = [speed(s) for s in said["rekindle"]]
            mine = median(ours)
            peak = median([s["peak_kib"] for s in said["rekindle"]]) / 1024
            if args.alone:
                print(f"{name}: {mine:,.0f} tokens/s {peak:.0f} MiB", flush=True)
            for who in list(said)[1:]:
                # Pairs that ran one after the other: the machine is not the same all along.
                ratios = sorted(a / speed(b) for a, b in zip(ours, said[who]))
                its = median([speed(s) for s in said[who]])
                room = median([s["peak_kib"] for s in said[who]]) / 1024
                lines.append(
                    f"| {name} | {who} | {mine:,.0f} | {its:,.0f} | **{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
                    f"| {peak:.0f} / {room:.0f} MiB | {agreement(said['rekindle'][0], said[who][0])} |")
                print(lines[-1], flush=True)
    if args.write:
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
        text = Path(args.write).read_text()
        begin, end = "<!-- table -->\n", "<!-- end of table -->"
        head = (f"{cpu}, {args.threads} threads; torch {torch.__version__}, transformers {transformers.__version__}; "
                f"medians of {args.rounds} rounds, ratios of neighbours.\n\n"
                "| work | peer | rekindle, tokens/s | peer | ratio | peak memory | the same result |\n|---|---|---:|---:|---:|---:|---|\n")
        before, rest = text.split(begin)
        Path(args.write).write_text(before + begin + head + "\n".join(lines) + "\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    main()
