#!/bin/sh
# Build verify.cpp against the torch that $PYTHON has: `PYTHON=.venv/bin/python examples/libtorch/build.sh OUT`.
# g++ is all it takes, and about a minute, nearly all of it for the headers.
# What libtorch itself is linked to (CUDA, in such a build) is looked for when it is loaded, not here.
set -eu
python=${PYTHON:-python3}
torch=$("$python" -c 'import torch; print(torch.__path__[0])')
abi=$("$python" -c 'import torch; print(int(torch.compiled_with_cxx11_abi()))')
exec "${CXX:-g++}" -std=c++17 -O1 -Wall -Wextra -D_GLIBCXX_USE_CXX11_ABI="$abi" \
    -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
    "$(dirname "$0")/verify.cpp" -o "${1:-verify}" \
    -L"$torch/lib" -Wl,-rpath,"$torch/lib" -Wl,--unresolved-symbols=ignore-in-shared-libs -ltorch_cpu -lc10
