# Installs claude-proxy into a directory of this job.
set -euo pipefail
place=${RUNNER_TEMP:?}/claude-proxy
fail() {
    printf '::error title=claude-proxy::%s\n' "$1"
    exit 1
}
case $PACKAGE in
    # On the public index the name claude-proxy belongs to another project.
    *.whl | *://* | ./* | /*) ;;
    *) fail "the input package names no file or URL; give it the wheel of claude-proxy" ;;
esac
"$PYTHON" -I -c 'import sys; sys.exit(sys.version_info < (3, 12))' ||
    fail "$PYTHON is not Python 3.12 or newer; use actions/setup-python before this step"
mkdir -p -m 0700 "$place" "$place/conf" "$place/state"
if [ ! -x "$place/venv/bin/claude-proxy" ]; then
    "$PYTHON" -I -m venv "$place/venv"
    "$place/venv/bin/python" -I -m pip --quiet --disable-pip-version-check install "$PACKAGE"
fi
"$place/venv/bin/claude-proxy" --version
