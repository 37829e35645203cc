# Writes what was denied and allowed into the summary of the job; ends a proxy that was started.
set -euo pipefail
place=${RUNNER_TEMP:?}/claude-proxy
program=$place/venv/bin/claude-proxy
if [ "$MODE" = report ] && [ -f "$place/serve.pid" ]; then
    process=$(cat "$place/serve.pid")
    kill -TERM "$process" 2> /dev/null || true
    for _ in $(seq 100); do kill -0 "$process" 2> /dev/null && sleep 0.1 || break; done
    rm -f "$place/serve.pid"
fi
chosen=(--statedir "$place/state")
[ -z "$RUN_NAME" ] || chosen+=(--run "$RUN_NAME")
by_host=$("$program" log --by host --json --limit 1000 "${chosen[@]}" 2> /dev/null)
denied=$(printf '%s' "$by_host" | "$PYTHON" -I -c '
import json, sys
print(sum(json.loads(line)["denied"] for line in sys.stdin))')
{
    printf '### claude-proxy: %s denied\n\n' "$denied"
    # Indented, it is shown as it is: a host name cannot become a link or end the block.
    "$program" log --by host --limit 1000 "${chosen[@]}" 2>&1 | sed 's/^/    /'
    printf '\n'
} >> "$GITHUB_STEP_SUMMARY"
printf 'denied=%s\n' "$denied" >> "$GITHUB_OUTPUT"
case ${EXIT_CODE:-0} in
    0) ;;
    *)
        printf '::error title=claude-proxy::the script ended with %s\n' "$EXIT_CODE"
        exit "$EXIT_CODE"
        ;;
esac
if [ "$FAIL_ON_DENIED" = true ] && [ "$denied" -gt 0 ]; then
    printf '::error title=claude-proxy::%s attempts were denied; see the summary\n' "$denied"
    exit 1
fi
