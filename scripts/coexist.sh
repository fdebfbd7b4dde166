#!/usr/bin/env bash
# A program that uses codeword and candle-core with its feature `cuda` builds as one tree: both take the same cudarc,
# whose features add up to a set that compiles, so values of its types pass from one to the other. Shows it by
# `cargo check` of such a program, for which it fetches candle from the registry and checks two hundred packages (a
# minute on two cores at the first run).
#
# candle-kernels wants an nvcc, and cargo check reads nothing of what that makes; so a stand-in serves, which writes
# files without kernels, and neither a toolkit nor a GPU is needed. What this does not show: that candle's own kernels
# compile, and that the program links (candle makes cudarc link libcuda, libcublas, libcublasLt, libcurand, libnvrtc).
#
# NVCC  a real compiler to use instead of the stand-in
set -euo pipefail
cd "$(dirname "$0")/.."
repository="$PWD"
tree="$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/coexist"
mkdir -p "$tree/src" "$tree/bin"

cat >"$tree/Cargo.toml" <<TOML
[package]
name = "coexist"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
codeword = { path = "$repository", default-features = false, features = ["cuda"] }
candle-core = { version = "=0.11.1", default-features = false, features = ["cuda"] }
TOML
cat >"$tree/src/main.rs" <<'RUST'
use candle_core::cuda_backend::cudarc::driver::CudaSlice as OfCandle;
use codeword::cuda::MatrixView;

/// Vectors that candle holds on the device, as codeword takes them: compiles only where both mean the same type.
fn view(vectors: &OfCandle<f32>, n: usize, d: usize) -> codeword::Result<MatrixView<'_, f32>> {
    MatrixView::new(vectors, n, d)
}

fn main() {
    let _ = view;
    println!("{} {}", codeword::Device::best(), candle_core::Device::new_cuda(0).is_ok());
}
RUST

# cudarc asks it for its version, candle-kernels for files at -o or beside their sources' names in --output-directory.
cat >"$tree/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
out=() into=
while [ $# -gt 0 ]; do
    case "$1" in
        --version)
            printf 'nvcc: NVIDIA (R) Cuda compiler driver\n(a stand-in)\n\nCuda compilation tools, release 13.0, V13.0.88\n'
            exit
            ;;
        -o) out+=("$2") && shift ;;
        --output-directory) into="$2" && shift ;;
        *.cu) name="$(basename "$1" .cu).ptx" ;;
    esac
    shift
done
[ -z "$into" ] || out+=("$into/$name")
for file in "${out[@]}"; do echo '.version 8.0' >"$file"; done
NVCC
chmod +x "$tree/bin/nvcc"
if [ -z "${NVCC:-}" ]; then
    export NVCC="$tree/bin/nvcc" PATH="$tree/bin:$PATH"
fi
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}"

cd "$tree"
cargo check
versions="$(cargo tree --prefix none -i cudarc --depth 0 | sort -u)"
# More than one version would already have been an error of cargo tree, which then asks which is meant.
echo "coexist: codeword and $(cargo tree --prefix none -i candle-core --depth 0 | head -1) share $versions"
