#!/usr/bin/env bash
# Measures `onward` on a GPU with CUDA beside the PyTorch program, and prints a table.
#
#     benches/gpu.sh ONWARD DATA
#
# ONWARD is the program, built with --features cuda; DATA is a folder with mnist/, the four files
# unpacked. Every line is the median of the epochs after the first. SEEDS=3 also trains for 20
# epochs with that many seeds, at each precision, and prints the test errors.
set -euo pipefail

if [ $# -ne 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
onward=$1 data=$2
here=$(cd "$(dirname "$0")" && pwd)
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

# Trains NAME with these arguments; prints the seconds of an epoch.
seconds() {
    local name=$1
    shift
    "$onward" train "$@" --data-dir "$data" --device cuda --quiet --out "$runs/$name" > /dev/null
    grep '"event":"epoch"' "$runs/$name/metrics.jsonl" | sed 's/.*"seconds":\([0-9.e-]*\).*/\1/' | tail -n +2 |
        sort -g | awk '{ v[NR] = $1 } END { printf "%.3f\n", v[int((NR + 1) / 2)] }'
}

row() { printf '| %-44s | %-5s | %8s |\n' "$@"; }

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
row "seconds per epoch" "" onward
wide='--set hidden=[2000,2000,2000,2000] --set batch=4096'
for precision in f32 tf32 bf16; do
    of="--set precision=$precision"
    row "progressive, 3×1000, batch 100" $precision "$(seconds narrow-$precision progressive --data mnist --epochs 5 $of)"
    row "progressive, 4×2000, batch 4096" $precision "$(seconds wide-$precision progressive --data mnist --epochs 6 $wide $of)"
    row "recurrent, 2×1000, 8 steps, batch 100" $precision "$(seconds recurrent-$precision recurrent --data mnist --epochs 3 $of)"
    row "nlp, fables, 3×1000, batch 1024" $precision "$(seconds nlp-$precision nlp --epochs 5 --set hidden=[1000,1000,1000] --set batch=1024 $of)"
done
if python3 -c 'import torch' 2> /dev/null; then
    for precision in f32 tf32 bf16; do
        for shape in "--epochs 5" "--epochs 6 --hidden 2000,2000,2000,2000 --batch 4096"; do
            "$here/pytorch_ff.py" "$data/mnist" --device cuda --graph --precision $precision $shape
        done
    done
fi
for seed in $(seq "${SEEDS:-0}"); do
    for precision in f32 tf32 bf16; do
        "$onward" train progressive --data mnist --data-dir "$data" --device cuda --epochs 20 --seed "$seed" \
            --set precision=$precision --quiet --out "$runs/seed-$seed-$precision" > /dev/null
        printf 'seed %d, %-4s, 20 epochs: ' "$seed" $precision
        sed -n '/"test"/,$p' "$runs/seed-$seed-$precision/summary.json" | grep -m1 '"error"'
    done
done
