#!/usr/bin/env bash
# fuzz.sh TIME: fuzzes every decoder for TIME each.
#
# The coordinator of Go 1.26 may take the end of the time for a failure of the test (golang/go#75804, mended in 1.27): it
# looks whether the context of its workers has ended a moment before that of the time ends it. It then says
# "context deadline exceeded" and nothing else. Whatever was found replaces that text, so alone it says that nothing was.
set -euo pipefail
time=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# onlyTime: all that the log tells of is the end of the time.
onlyTime() {
  [[ $(grep -cE '^ *--- FAIL' "$log") -eq 1 ]] &&
    grep -A1 -E '^--- FAIL: Fuzz' "$log" | tail -n1 | grep -qxE ' +context deadline exceeded' &&
    ! grep -qE 'Failing input written|failure while testing seed|WARNING: DATA RACE|^panic:|^fatal error:|build failed' "$log"
}

for f in $(git grep --untracked -lE '^func Fuzz[A-Z]' -- '*_test.go'); do
  for name in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$f"); do
    echo "== $name ($f)"
    if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$f")" 2>&1 | tee "$log"; then
      onlyTime || exit 1
      printf '\n!!!!!!!! %s: the time was over and nothing found; Go told it as a failure (golang/go#75804)\n\n' "$name" >&2
    fi
  done
done
