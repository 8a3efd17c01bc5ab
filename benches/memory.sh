#!/bin/sh
# What trainings are expected to need against what they take.
#
#   benches/memory.sh [path of rekindle]
#
# For each shape: the estimate is what the refusal of a training says when next to
# no memory is allowed; the peak is the largest resident size of the process that
# trains, as GNU time tells it. Everything before the training is done by another
# process. The last column is estimate by peak: below 1 a training takes more than
# it was expected to. The program itself, its data and its allocator are in the
# peak and not in the estimate.
set -eu

rekindle=$(realpath "${1:-target/release/rekindle}")
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"

# Eight problems of 2,000 words, as a data set that is fetched from a folder.
awk 'BEGIN { srand(1); split("apples pears boxes red blue Tom Ann has gives takes and then more three seven", w)
    for (i = 0; i < 8; i++) { printf "{\"question\": \""; for (j = 0; j < 2000; j++) printf "%s ", w[1 + int(rand() * 15)]
        printf "?\", \"answer\": \"It is %d\\n#### %d\"}\n", i, i } }' > long.jsonl
short='[dataset.words]
kind = "word-problems"
protocol = "arithmetic"
problems = { base = 200 }'
long="[dataset.words]
kind = \"fetch-dataset\"
url = \"http://127.0.0.1/long.jsonl\"
sha256 = \"$(sha256sum long.jsonl | cut -d ' ' -f 1)\"
mirror-path = \"long.jsonl\"
format = \"gsm8k-jsonl\"
mask = false"
words=$short problems=words.base

# name, device, width, layers, heads, feed-forward, batch, other lines of the training
measure() {
    cat > before.toml <<END
rekindle = 1
name = "memory"
results = "results"

[protocol.arithmetic]
question = "{question}"
answer = "number"

[model.shape]
width = $3
layers = $4
heads = $5
kv-heads = $5
feed-forward = $6
context = 4096

$words

[stage.corpus]
kind = "examples"
problems = "$problems"
protocol = "arithmetic"

[stage.vocabulary]
kind = "tokenizer"
protocol = "arithmetic"
examples = ["corpus"]
END
    { cat before.toml; printf '\n[stage.trained]\nkind = "train"\nmodel = "shape"\ntokenizer = "vocabulary"\n'
      printf 'data = ["corpus"]\nepochs = 1\nbatch = %s\n%s\n' "$7" "$8"; } > after.toml
    rm -rf store
    "$rekindle" run before.toml --device "$2" --store store --mirror . --quiet
    expected=$(REKINDLE_MEMORY_MIB=1 "$rekindle" run after.toml --device "$2" --store store --mirror . 2>&1 \
        | sed -n 's/.*this training needs about \(.*\) of memory.*/\1/p')
    /usr/bin/time -f %M -o peak "$rekindle" run after.toml --device "$2" --store store --mirror . --quiet
    peak=$(cat peak)
    mebibytes=$(echo "$expected" | awk '$2 == "KiB" { $1 /= 1024 } $2 == "GiB" { $1 *= 1024 } { print $1 }')
    awk -v name="$1" -v e="$mebibytes" -v p="$peak" \
        'BEGIN { printf "| %s | %.0f MiB | %.0f MiB | %.2f |\n", name, e, p / 1024, e / (p / 1024) }'
}

echo "| training | estimate | peak | ratio |"
echo "|---|---|---|---|"
measure "quickstart: width 128, 3 layers, batch 8" cpu 128 3 4 336 8 ""
measure "1M: width 128, 4 layers, batch 32" cpu 128 4 4 384 32 ""
measure "the same, recomputed" cpu 128 4 4 384 32 "recompute = true"
measure "the same in 4 parts" cpu 128 4 4 384 32 "accumulate = 4"
measure "the same in bf16" cpu/bf16 128 4 4 384 32 ""
measure "5.4M: width 256, 6 layers, batch 16" cpu 256 6 8 768 16 ""
measure "the same, recomputed" cpu 256 6 8 768 16 "recompute = true"
measure "5.4M, batch 64" cpu 256 6 8 768 64 ""
measure "the same with a checkpoint at each step" cpu 256 6 8 768 64 "checkpoint-seconds = 0"
measure "57M: width 768, 8 layers, batch 8" cpu 768 8 12 2048 8 ""
words=$long problems=words
measure "2,000-token texts: width 128, 4 layers, batch 1" cpu 128 4 4 384 1 ""
measure "the same in bf16" cpu/bf16 128 4 4 384 1 ""
