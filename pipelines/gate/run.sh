#!/usr/bin/env bash
# The step of action.yml: the package that belongs to it, then gate.sh.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
if [ -z "${GATE_COMMAND:-}" ]; then
  version=${GATE_VERSION:-$(node -p 'require(process.argv[1]).version' "$here/../../package.json")}
  export GATE_COMMAND="npx --yes --package temper-oss@$version temper"
fi
if [ -z "${TEMPER_JUDGE_API_KEY:-}" ]; then unset TEMPER_JUDGE_API_KEY; fi
exec "$here/../gate.sh" "${GATE_MODE:-all}"
