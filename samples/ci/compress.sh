#!/usr/bin/env bash
# A stage of a CI pipeline: compress a checkpoint, and end with the verdict as exit code
# (0 accepted, 1 a rule failed, 2 the input is at fault, 3 this machine cannot, 130 interrupted).
#
#   RECIPE=recipe.yaml [OUT=runs/ci] [BASELINE=report.json] compress.sh [--set KEY=VALUE]…
#
# Keep $OUT/stages between jobs: a job that was ended goes on in the next one. What else is in $OUT is the result:
# report.html and report.json, summary.md, junit.xml, compact.onnx.
set -uo pipefail
: "${RECIPE:?name the recipe}"
out=${OUT:-runs/ci}

case ${BASELINE:-} in
  "$out"/*) echo "error: BASELINE lies in $out, whose results are removed first; keep it elsewhere" >&2; exit 2 ;;
esac

# What an earlier job found must not speak for this one.
rm -f "$out"/report.json "$out"/report.html "$out"/summary.md "$out"/junit.xml "$out"/compact.onnx \
  "$out"/compact.safetensors "$out"/plan.json

command=(compressor run "$RECIPE" --out "$out" "$@")
if [ -n "${BASELINE:-}" ]; then command+=(--baseline "$BASELINE"); fi

# A runner that ends the job sends a signal to this shell: pass it on, and wait until the state is saved.
"${command[@]}" &
child=$!
trap 'kill -TERM "$child"' TERM INT
while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done

# Without a verdict there is no report: the job's summary and its tests say so all the same.
if [ ! -f "$out/summary.md" ]; then
  mkdir -p "$out"
  echo "compressor ended with exit code $code and without a verdict; what it printed says why." >"$out/summary.md"
  echo "<testsuites><testsuite name=\"compressor\" tests=\"1\" errors=\"1\"><testcase name=\"verdict\"><error message=\"exit code $code\"/></testcase></testsuite></testsuites>" >"$out/junit.xml"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$out/summary.md" >>"$GITHUB_STEP_SUMMARY"; fi
exit "$code"
