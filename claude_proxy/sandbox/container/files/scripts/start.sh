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
"$PYTHON" - "$process" "$PORT" <<'PYTHON' || {
import os, socket, sys, time

process, port = int(sys.argv[1]), int(sys.argv[2])
for _ in range(600):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        os.kill(process, 0)
        sys.exit(0)
    except OSError:
        time.sleep(0.1)
    with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
        if stat.read().rpartition(")")[2].split()[0] == "Z":
            break
sys.exit(1)
PYTHON
    cat "$place/serve.log" >&2
    printf '::error title=claude-proxy::the proxy did not start\n'
    exit 1
}
printf '%s\n' "$process" > "$place/serve.pid"
"$place/venv/bin/claude-proxy" env --shell json --port "$PORT" --confdir "$place/conf" |
    "$PYTHON" -c '
import json, secrets, sys
for name, value in json.load(sys.stdin).items():
    end = secrets.token_hex(16)
    print(f"{name}<<{end}\n{value}\n{end}")
' >> "$GITHUB_ENV"
printf 'proxy=http://127.0.0.1:%s\n' "$PORT" >> "$GITHUB_OUTPUT"
