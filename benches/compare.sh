#!/usr/bin/env bash
# Times two commands in alternation and prints the ratio of their medians.
#
#     benches/compare.sh 3 'onward train progressive --data mnist --epochs 3' 'python -m main'
#
# Run it on an idle machine. A command that writes a folder must be repeatable.
set -euo pipefail

if [ $# -ne 3 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
rounds=$1 first=$2 second=$3
log=$(mktemp)
trap 'rm -f "$log" "$log".1 "$log".2' EXIT

# Prints the wall time of a command in seconds. Shows its output only if it fails.
seconds() {
    local start end
    start=$(date +%s.%N)
    bash -c "$1" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
    end=$(date +%s.%N)
    awk -v a="$start" -v b="$end" 'BEGIN { printf "%.2f\n", b - a }'
}

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'; }

for round in $(seq "$rounds"); do
    one=$(seconds "$first")
    two=$(seconds "$second")
    echo "round $round: $one s, $two s"
    echo "$one" >> "$log".1
    echo "$two" >> "$log".2
done
one=$(median "$log".1) two=$(median "$log".2)
awk -v a="$one" -v b="$two" 'BEGIN { printf "median: %.2f s, %.2f s; the second takes %.2f times as long\n", a, b, b / a }'
