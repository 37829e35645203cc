# Starts an empty sandbox: where none can be made, nothing of the job runs.
set -euo pipefail
place=${RUNNER_TEMP:?}/claude-proxy
mkdir -p "$place/empty"
if said=$("$place/venv/bin/claude-proxy" run --no-network --profile shell --name check \
    --dir "$place/empty" --confdir "$place/conf" --statedir "$place/state" -- true 2>&1); then
    exit 0
fi
printf '%s\n' "$said" >&2
{
    printf '### claude-proxy: no sandbox can be made here, so nothing was run\n\n'
    printf '%s\n' "$said" | sed 's/^/    /'
} >> "$GITHUB_STEP_SUMMARY"
first=${said%%$'\n'*}
printf '::error title=claude-proxy::%s; the fix is in the summary of the job\n' "${first//%/%25}"
exit 1
