#!/usr/bin/env bash
# race.sh PACKAGE...: runs tests under the race detector.
#
# The detector of Go 1.26 may end a process with a failed check of its own where tests use testing/synctest
# (golang/go#78156), or with a signal while a timer of a bubble runs, which says nothing about the tests: in Go's code
# a bad address is a panic, and there is no other code in these processes than the detector's. Packages of which that
# is all that is wrong are run once more.
set -euo pipefail
export CGO_ENABLED=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if go test -race -timeout 20m -count="${COUNT:-1}" "$@" 2>&1 | tee "$log"; then exit 0; fi
crash='^(ThreadSanitizer: CHECK failed|SIGSEGV: segmentation violation$)'
crashed=$(grep -cE "$crash" "$log" || true)
failed=$(awk '$1 == "FAIL" && NF > 1 {print $2}' "$log")
if [[ $crashed -eq 0 || $crashed -ne $(wc -w <<<"$failed") ]] || grep -qE '^ *--- FAIL|WARNING: DATA RACE|^panic:|^fatal error:' "$log"; then
  exit 1
fi
printf '\n!!!!!!!! the race detector crashed (golang/go#78156); once more: %s\n\n' "$failed" >&2
# shellcheck disable=SC2086 # They are several words.
go test -race -timeout 20m -count="${COUNT:-1}" $failed
