#!/usr/bin/env bash
# The same nearest-codeword work by codeword, faiss-cpu, torch, scikit-learn and SciPy, side by side. The first run
# installs the peers into benches/peers/.venv (about 700 MB of downloads, most of them torch;
# Python 3.11 or later). Arguments go to peers.py:
#   benches/peers/run.sh                                   the standard shapes
#   benches/peers/run.sh --shape 100000x256x1024 --rounds 7 --peers codeword,faiss,torch
# In the same environment kmeans.py times training, and codes.py product and residual quantizers.
# CODEWORD_DATA, the folder with siftsmall/ and faiss_ref/, adds real data. Let nothing else run meanwhile.
set -euo pipefail
cd "$(dirname "$0")"

python=.venv/bin/python
if [ ! -e .venv/complete ]; then
    python3 -m venv .venv
    $python -m pip install -q numpy==2.4.* scipy==1.17.* scikit-learn==1.9.* faiss-cpu==1.15.1
    # On Linux the torch of PyPI wants gigabytes of CUDA libraries; without them it computes on the CPU all the same,
    # once torch_cpu_only.py has put empty ones in their place. (setuptools: torch imports it.)
    if [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; then
        $python -m pip install -q --no-deps torch==2.15.* 'nvidia-cuda-runtime==13.2.*'
        $python -m pip install -q filelock typing-extensions sympy networkx jinja2 fsspec setuptools
        $python torch_cpu_only.py
    else
        $python -m pip install -q torch==2.15.*
    fi
    $python -c 'import faiss, scipy, sklearn, torch'
    touch .venv/complete
fi
exec $python peers.py "$@"
