#!/usr/bin/env bash
# Runs the gate over $MODEL with $POLICY; its exit code is the gate's. Reports stand beside:
# lipcert.sarif, lipcert.xml (JUnit), and the summary of the run where there is one.
set -euo pipefail
arguments=("$MODEL" --policy "$POLICY" --sarif lipcert.sarif --junit lipcert.xml)
if [[ -n "${SERVER:-}" ]]; then
  arguments+=(--server "$SERVER")
fi
code=0
lipcert gate "${arguments[@]}" --markdown lipcert.md || code=$?
if [[ -n "${GITHUB_STEP_SUMMARY:-}" && -f lipcert.md ]]; then
  cat lipcert.md >> "$GITHUB_STEP_SUMMARY"
fi
exit "$code"
