#!/bin/sh
# What the wheels' builds need and their images lack, into the folder $1: headers, and libmythos_tokenizer by cargo.
# cibuildwheel runs this (runtimes/python/pyproject.toml); a developer's machine has apt instead (cmake/Headers.cmake).
set -eu
onnxruntime=1.21.0 json=3.12.0 cli11=2.5.0 # the oldest ONNX Runtime whose library the headers fit, as in Debian 13
project=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1/nlohmann" "$1/CLI"
cd "$1"
get() { curl --fail --silent --show-error --location --retry 3 "https://github.com/$1" --output "$2"; }
get "microsoft/onnxruntime/releases/download/v$onnxruntime/onnxruntime-linux-x64-$onnxruntime.tgz" onnxruntime.tgz
tar xzf onnxruntime.tgz --strip-components=2 "onnxruntime-linux-x64-$onnxruntime/include"
get "nlohmann/json/releases/download/v$json/json.hpp" nlohmann/json.hpp
get "CLIUtils/CLI11/releases/download/v$cli11/CLI11.hpp" CLI/CLI.hpp
if [ "$(uname)" = Linux ]; then
  curl --proto '=https' --fail --silent --show-error https://sh.rustup.rs | sh -s -- -y --profile minimal
  PATH="$HOME/.cargo/bin:$PATH" python3 "$project/cmake/build_tokenizer.py"
fi
