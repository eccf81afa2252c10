#!/bin/sh
# Run a cron job and report how it ended: one notification and one activity.
#
#   0 3 * * *  /path/to/cron_report.sh backup /usr/local/bin/backup.sh --full
#
# The exit code is the job's. FLASHFLOW_USER is the user who is notified (default: the job's own).
set -u

if [ $# -lt 2 ]; then
  echo "usage: $0 NAME COMMAND [ARGUMENT…]" >&2
  exit 2
fi
name=$1
shift
case $name in
*[!A-Za-z0-9._-]*)
  echo "$0: the name may have letters, digits, dots, hyphens and underscores" >&2
  exit 2
  ;;
esac
user=${FLASHFLOW_USER:-$(id -un)}

began=$(date +%s)
output=$("$@" 2>&1)
code=$?
seconds=$(($(date +%s) - began))

if [ "$code" -eq 0 ]; then
  title="$name finished" priority=normal
else
  title="$name failed with exit code $code" priority=high
fi
# The end of the output; iconv drops a character that the cut has split.
printf '%s\n' "${output:-No output.}" | tail -c 4000 | iconv -c -f UTF-8 -t UTF-8 |
  flashflow send "$user" "$title" - --type cron --priority "$priority" >/dev/null
flashflow track "$user" cron_job \
  --metadata "{\"job\": \"$name\", \"exit_code\": $code, \"seconds\": $seconds}" >/dev/null

exit "$code"
