# Runs the script in a sandbox. The variables of this step, and the files by which a step talks to
# the runner, are not visible inside.
set -euo pipefail
place=${RUNNER_TEMP:?}/claude-proxy
random() { "$PYTHON" -I -c 'import secrets; print(secrets.token_hex(16))'; }
case $RUN_NAME in
    "" | *[!A-Za-z0-9._-]*)
        printf '::error title=claude-proxy::the input name may have letters, digits, . _ and - only\n'
        exit 2
        ;;
esac
name=$RUN_NAME-$(random | cut -c 1-8)
words=(--profile shell --name "$name" --dir "$PWD")
words+=(--confdir "$place/conf" --statedir "$place/state")
[ -z "$ALLOWLIST" ] || words+=(--allowlist "$ALLOWLIST")
[ -z "$POLICY" ] || words+=(--policy "$POLICY")
for variable in $PASS_ENV; do words+=(--pass-env "$variable"); done
while IFS= read -r word; do [ -z "$word" ] || words+=("$word"); done <<< "$OPTIONS"
# What runs inside may print workflow commands: until this token, the runner obeys none.
token=$(random)
printf '::stop-commands::%s\n' "$token"
code=0
"$place/venv/bin/claude-proxy" run "${words[@]}" -- \
    bash --noprofile --norc -eo pipefail -c "$SCRIPT" || code=$?
printf '\n::%s::\n' "$token"
{
    printf 'exit-code=%s\n' "$code"
    printf 'run-name=%s\n' "$name"
} >> "$GITHUB_OUTPUT"
