#!/usr/bin/env bash
# What pipelines run: `temper screen`, set by variables. action.yml, gitlab.yml, kubernetes.yaml and slurm.sbatch call it.
#
#   screen.sh whole    judges all rows and reports on them; exit code of `temper screen`
#   screen.sh shard    judges the rows of one task of an array, leaves SCREEN_OUT/part-I.jsonl; 0 where that is there
#   screen.sh merge    joins SCREEN_OUT/part-*.jsonl and reports; exit code of `temper screen merge`
#
# SCREEN_INPUT        files, folders, patterns; one a line
# SCREEN_POLICY       policy files; one a line
# SCREEN_JUDGE        checkpoint folder or URL; SCREEN_JUDGE_MODEL, SCREEN_JUDGE_CONCURRENCY: of a URL
# SCREEN_FAIL_ON      rules of --fail-on; one a line
# SCREEN_SHARD        i/n, where no scheduler's variables say it
# SCREEN_OUT          folder of verdicts and reports; screening
# SCREEN_ARGS         further arguments of `temper screen`; one a line
# SCREEN_COMMAND      how temper is called; temper
# The judge's key is read by temper itself, from the environment.
set -euo pipefail

mode=${1:?usage: screen.sh whole | shard | merge}
out=${SCREEN_OUT:-screening}
read -r -a temper <<<"${SCREEN_COMMAND:-temper}"

args=()
# each OPTION TEXT: the option before every line of the text that is not blank; without one the line alone.
each() {
  local line
  while IFS= read -r line || [ -n "$line" ]; do
    [ -n "${line//[[:space:]]/}" ] || continue
    if [ -n "$1" ]; then args+=("$1" "$line"); else args+=("$line"); fi
  done <<<"$2"
}
reports() {
  args+=(--junit "$out/junit.xml" --sarif "$out/verdicts.sarif" --code-quality "$out/code-quality.json")
  args+=(--csv "$out/verdicts.csv" --html "$out/report.html" --summary "${GITHUB_STEP_SUMMARY:-$out/summary.md}")
  if [ "${GITHUB_ACTIONS:-}" = true ]; then args+=(--annotations); fi
  each --fail-on "${SCREEN_FAIL_ON:-}"
}
judged() {
  each --policy "${SCREEN_POLICY:?no policy: nothing can be judged}"
  args+=(--judge "${SCREEN_JUDGE:?no judge}")
  if [ -n "${SCREEN_JUDGE_MODEL:-}" ]; then args+=(--judge-model "$SCREEN_JUDGE_MODEL"); fi
  if [ -n "${SCREEN_JUDGE_CONCURRENCY:-}" ]; then args+=(--judge-concurrency "$SCREEN_JUDGE_CONCURRENCY"); fi
  each '' "${SCREEN_ARGS:-}"
  # What is named like an option is a file all the same.
  args+=(--)
  each '' "${SCREEN_INPUT:?no input}"
}

mkdir -p "$out"
case $mode in
  whole)
    args=(screen --shard off --out "$out/verdicts.jsonl")
    reports
    judged
    code=0
    "${temper[@]}" "${args[@]}" || code=$?
    if [ -n "${GITHUB_OUTPUT:-}" ]; then
      printf '%s\n' "exit-code=$code" "folder=$out" >>"$GITHUB_OUTPUT"
    fi
    exit "$code"
    ;;
  shard)
    args=(screen --out "$out/part-{shard}.jsonl")
    if [ -n "${SCREEN_SHARD:-}" ]; then args+=(--shard "$SCREEN_SHARD"); fi
    judged
    code=0
    result=$("${temper[@]}" "${args[@]}") || code=$?
    printf '%s\n' "$result"
    # What is blocked or unjudged is for the merge to say. Without a part the task has failed, and may be tried again.
    if [[ $result == *"verdicts of shard "* ]]; then exit 0; fi
    if [ "$code" = 0 ]; then
      echo "screen.sh: neither SCREEN_SHARD nor a scheduler says which shard this is" >&2
      code=2
    fi
    exit "$code"
    ;;
  merge)
    shopt -s nullglob
    parts=("$out"/part-*.jsonl)
    args=(screen merge --out "$out/verdicts.jsonl")
    reports
    args+=(-- "${parts[@]}")
    code=0
    "${temper[@]}" "${args[@]}" || code=$?
    if [ -n "${GITHUB_OUTPUT:-}" ]; then
      printf '%s\n' "exit-code=$code" "folder=$out" >>"$GITHUB_OUTPUT"
    fi
    exit "$code"
    ;;
  *)
    echo "screen.sh: $mode: wanted whole, shard or merge" >&2
    exit 2
    ;;
esac
