#!/usr/bin/env bash
# Runs make targets one after another: `e2e/steps.sh fmt lint unit`. Prints which step of how many is under way, how to
# run a failed step alone, and at the end the seconds of each step.
set -uo pipefail
cd "$(dirname "$0")/.."
done_steps=()
seconds=()
child=
# A signal to this script alone must end the step too. (Ctrl-C reaches both.)
trap 'if [ -n "$child" ]; then kill -TERM "$child"; wait "$child"; fi; exit 143' TERM HUP

table() {
  echo
  echo "| step | seconds |"
  echo "|---|---|"
  for index in "${!done_steps[@]}"; do echo "| ${done_steps[index]} | ${seconds[index]} |"; done
  echo "| all | $SECONDS |"
}

for step in "$@"; do
  echo "== step $((${#done_steps[@]} + 1)) of $#: make $step"
  begun=$SECONDS
  # bash makes background processes ignore SIGINT.
  (trap - INT; exec make --no-print-directory "$step") <&0 &
  child=$!
  wait "$child"
  status=$?
  child=
  done_steps+=("$step")
  seconds+=($((SECONDS - begun)))
  if [ "$status" != 0 ]; then
    table
    echo "Step $step failed: its last lines are above the table. To run it alone: make $step" >&2
    exit "$status"
  fi
done
table
