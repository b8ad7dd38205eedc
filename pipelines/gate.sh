#!/usr/bin/env bash
# What pipelines run to release an adapter: it is trained, held to the gate, and exported where it passed. Set by
# variables; pipelines/gate/action.yml and gitlab-gate.yml call it.
#
#   gate.sh all       trains, gates and exports
#   gate.sh train     trains alone
#   gate.sh gate      gates a run that is there, and exports
#
# Exit code: 0 it passed and is exported; 10 it failed, 20 nobody can say, 30 judge or machine, 40 lock or evidence are
# not what they were, 2 bad options. What speaks against it stands in the summary and in GATE_RUN/gate/report.html.
#
# GATE_RECIPE         recipe
# GATE_SUITE          suite of the gate
# GATE_LOCK           gate.lock.json that was committed before; without one the run makes its own, and the report says so
# GATE_JUDGE          checkpoint folder or URL, where the suite judges by policies; GATE_JUDGE_MODEL: of a URL
# GATE_RUN            folder of the run; runs/gated
# GATE_EXPORT         new folder of the export; GATE_RUN/release
# GATE_FORMAT         forms of the export, by commas; peft
# GATE_CONTENT        full or none: whether evidence has what was asked and said; none
# GATE_ARGS           further arguments of `temper gate`; one a line
# GATE_COMMAND        how temper is called; temper
# The judge's key is read by temper itself, from the environment.
set -euo pipefail

mode=${1:?usage: gate.sh all | train | gate}
run=${GATE_RUN:-runs/gated}
release=${GATE_EXPORT:-$run/release}
read -r -a temper <<<"${GATE_COMMAND:-temper}"

tell() {
  if [ -n "${GITHUB_OUTPUT:-}" ]; then printf '%s\n' "$@" >>"$GITHUB_OUTPUT"; fi
}
train() {
  local args=(train "${GATE_RECIPE:?no recipe}" --out "$run")
  # A job that was ended goes on from its last checkpoint.
  if [ -e "$run/run.json" ]; then args+=(--resume); fi
  "${temper[@]}" "${args[@]}"
}
gate() {
  local args=(gate --suite "${GATE_SUITE:?no suite: nothing can be decided}" --content "${GATE_CONTENT:-none}") line
  if [ -n "${GATE_LOCK:-}" ]; then args+=(--lock "$GATE_LOCK"); fi
  if [ -n "${GATE_JUDGE:-}" ]; then args+=(--judge "$GATE_JUDGE"); fi
  if [ -n "${GATE_JUDGE_MODEL:-}" ]; then args+=(--judge-model "$GATE_JUDGE_MODEL"); fi
  while IFS= read -r line || [ -n "$line" ]; do
    if [ -n "${line//[[:space:]]/}" ]; then args+=("$line"); fi
  done <<<"${GATE_ARGS:-}"
  local code=0
  "${temper[@]}" "${args[@]}" -- "$run" || code=$?
  tell "exit-code=$code" "report=$run/gate"
  if [ -e "$run/gate/decision.json" ] && [ ! -e "$run/gate/report.md" ]; then
    "${temper[@]}" gate report "$run/gate" >/dev/null
  fi
  if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -e "$run/gate/report.md" ]; then
    cat "$run/gate/report.md" >>"$GITHUB_STEP_SUMMARY"
  fi
  if [ "$code" != 0 ]; then exit "$code"; fi
  "${temper[@]}" export "$run" --format "${GATE_FORMAT:-peft}" --out "$release"
  tell "folder=$release"
}

case $mode in
  all)
    train
    gate
    ;;
  train) train ;;
  gate) gate ;;
  *)
    echo "gate.sh: $mode: wanted all, train or gate" >&2
    exit 2
    ;;
esac
