#!/usr/bin/env bash
# Everything that a GPU is asked, in one call, on a machine with nothing but Python and this repository:
#   benchmarks/gpu.sh runs/speed-gpu [--minutes 9] [--parts projection paper]
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:?a folder for the results}
shift
if ! python3 -c 'import dudi, trl' 2>/dev/null; then
    python3 -m pip install --quiet --editable '.[peft]'
fi
python3 -m benchmarks.gpu --output "$output" "$@"
