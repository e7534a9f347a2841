#!/bin/sh
# Fills the empty environment /venv from a lock: `sh install.sh LOCK`. It runs inside a build stage, where /tools
# has a pip; neither pip nor anything that only serves building ends up in /venv.
set -eu
/tools/bin/python -m pip --python /venv/bin/python install --no-compile --require-hashes --only-binary=:all: \
    --no-deps -r "$1"
cd "$(echo /venv/lib/python3*/site-packages)"
# Tests, C++ headers (240 MB), compilers and test programs serve nobody here; nothing imports a folder named tests.
rm -rf torch/test torch/include torch/bin/test_* torch/bin/protoc*
rm -rf onnxruntime/datasets onnxruntime/tools onnxruntime/transformers
find . -type d -name tests -prune -exec rm -rf {} +
# Hashed bytecode stays valid when the builder resets file times. Of transformers' some 400 families only those that
# the project runs are compiled, which saves 60 MB. `|| true`: torch ships a file for newer Pythons.
python=/venv/bin/python
"$python" -m compileall -q --invalidation-mode unchecked-hash -x 'transformers/models/' . || true
for family in auto bert distilbert roberta gpt2 modernbert; do
    [ ! -d "transformers/models/$family" ] || \
        "$python" -m compileall -q --invalidation-mode unchecked-hash "transformers/models/$family"
done
