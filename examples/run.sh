#!/usr/bin/env bash
# The main job on the sample: a codebook learned from the patches of a picture, and the patches to the codes of the one
# that comes with it, back to patches, and the two pictures side by side.
# Needs Rust, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

# One build for both programs: built apart, Cargo would choose other features for shared dependencies and build twice.
cargo build --release --bin codeword --example picture
programs="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release"
sample=examples/sample
out=examples/out
mkdir -p "$out"

codeword() {
    echo
    echo "\$ codeword $*"
    "$programs/codeword" "$@"
}
codeword train "$sample/patches.npy" -k 256 -o "$out/learned.npy" --force
codeword eval "$sample/patches.npy" -c "$out/learned.npy"
codeword encode "$sample/patches.npy" -c "$sample/codebook.npy" -o "$out/codes.npy" --force
codeword decode "$out/codes.npy" -c "$sample/codebook.npy" -o "$out/decoded.npy" --force
codeword eval "$sample/patches.npy" -c "$sample/codebook.npy"

echo
"$programs/examples/picture" compare "$sample/patches.npy" "$out/decoded.npy" "$out/compare.png"
wc -c "$sample/patches.npy" "$out/codes.npy" | sed '$d'
echo "Look at $out/compare.png."
