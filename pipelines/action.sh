#!/usr/bin/env bash
# The step of action.yml: the package that belongs to it, then screen.sh.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
if [ -z "${SCREEN_COMMAND:-}" ]; then
  version=${SCREEN_VERSION:-$(node -p 'require(process.argv[1]).version' "$here/../package.json")}
  export SCREEN_COMMAND="npx --yes --package temper-oss@$version temper"
fi
if [ -z "${TEMPER_JUDGE_API_KEY:-}" ]; then unset TEMPER_JUDGE_API_KEY; fi
exec "$here/screen.sh" "${SCREEN_MODE:-whole}"
