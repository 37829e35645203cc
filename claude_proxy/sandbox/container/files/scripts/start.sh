# Starts the proxy for the steps that come after, and sets the variables that lead to it.
set -euo pipefail
place=${RUNNER_TEMP:?}/claude-proxy
words=(--listen "127.0.0.1:$PORT" --confdir "$place/conf" --statedir "$place/state")
[ -z "$ALLOWLIST" ] || words+=(--allowlist "$ALLOWLIST")
[ -z "$POLICY" ] || words+=(--policy "$POLICY")
while IFS= read -r word; do [ -z "$word" ] || words+=("$word"); done <<< "$OPTIONS"
nohup setsid "$place/venv/bin/claude-proxy" serve "${words[@]}" \
    > "$place/serve.log" 2>&1 < /dev/null &
process=$!
# Not by a connection: something else may listen there.
listening() { grep -q '^claude-proxy listens on ' "$place/serve.log"; }
for _ in $(seq 600); do
    listening || ! kill -0 "$process" 2> /dev/null || { sleep 0.1 && continue; }
    break
done
if ! listening; then
    cat "$place/serve.log" >&2
    printf '::error title=claude-proxy::the proxy did not start\n'
    exit 1
fi
printf '%s\n' "$process" > "$place/serve.pid"
"$place/venv/bin/claude-proxy" env --shell json --port "$PORT" --confdir "$place/conf" |
    "$PYTHON" -I -c '
import json, secrets, sys
for name, value in json.load(sys.stdin).items():
    end = secrets.token_hex(16)
    print(f"{name}<<{end}\n{value}\n{end}")
' >> "$GITHUB_ENV"
printf 'proxy=http://127.0.0.1:%s\n' "$PORT" >> "$GITHUB_OUTPUT"
