#!/usr/bin/env bash
# Puts the Autobahn testsuite (wstest) into a Python 2.7 virtual environment.
#
#     setup.sh [DIR]        DIR defaults to $AUTOBAHN_VENV, else ~/.cache/autobahn-venv
#
# Idempotent: when DIR already holds these very pins it says so and returns at once; otherwise
# DIR is rebuilt from nothing (about a minute).  Everything comes from PyPI by name and exact
# version, through pip as the machine has it set up.  One package, wsaccel (the C frame masker
# and UTF-8 validator, without which section 9 takes several times as long), is compiled here:
# it needs a C compiler.  Nothing outside DIR is changed, apart from pip's cache and DIR.lock,
# which keeps two runs from building at once.
#
# The suite runs on Python 2.7 alone.  That is no package of today's Debian and none of PyPI's,
# so it must be on the machine: pyenv's is looked for first, then the usual names.
# AUTOBAHN_PYTHON=/path/to/python2.7 overrides the search.
#
# Exit status: 0 ready; 3 no usable Python 2.7; 4 the packages could not be installed;
# 5 installed, but wstest does not start.
set -euo pipefail

DIR=${1:-${AUTOBAHN_VENV:-$HOME/.cache/autobahn-venv}}
mkdir -p "$(dirname "$DIR")"
DIR=$(cd "$(dirname "$DIR")" && pwd)/$(basename "$DIR")

say() { printf 'autobahn setup: %s\n' "$*"; }
die() { local rc=$1; shift; printf 'autobahn setup: %s\n' "$*" >&2; exit "$rc"; }

# Build tools first (the environment is made without build isolation, so that nothing unpinned
# is drawn in), then the whole closure of autobahntestsuite 25.10.1.
VIRTUALENV='virtualenv==16.7.12'
TOOLS='pip==20.3.4 setuptools==44.0.0 wheel==0.37.1 Cython==0.29.37'
PINS='
attrs==21.4.0
autobahn==0.10.9
autobahntestsuite==25.10.1
Automat==22.10.0
cffi==1.15.1
constantly==15.1.0
cryptography==3.3.2
enum34==1.1.10
argparse==1.4.0
hyperlink==21.0.0
idna==2.10
incremental==16.10.1
ipaddress==1.0.23
Jinja2==2.11.3
klein==17.10.0
linecache2==1.0.0
MarkupSafe==1.1.1
pyasn1==0.5.1
pyasn1-modules==0.3.0
pycparser==2.21
PyHamcrest==1.10.1
pyOpenSSL==19.1.0
service-identity==18.1.0
six==1.16.0
traceback2==1.4.0
Twisted==19.10.0
txaio==2.1.0
typing==3.10.0.0
ujson==2.0.3
unittest2==1.1.0
Werkzeug==1.0.1
wsaccel==0.6.6
zope.interface==4.6.0
'

# A usable interpreter: 2.7, with ssl and zlib compiled in (the suite imports both).
usable() {
  "$1" -c 'import sys, ssl, zlib, ctypes; sys.exit(0 if sys.version_info[:2] == (2, 7) else 1)' >/dev/null 2>&1
}

candidates() {
  [[ -z "${AUTOBAHN_PYTHON:-}" ]] || { printf '%s\n' "$AUTOBAHN_PYTHON"; return; }
  local root
  for root in "${PYENV_ROOT:-}" "$HOME/.pyenv" /opt/pyenv /usr/local/pyenv; do
    [[ -n "$root" ]] || continue
    # a later patch release first
    printf "%s\n" "$root"/versions/2.7*/bin/python2.7 | sort -rV
  done
  printf '%s\n' /usr/local/bin/python2.7 /usr/bin/python2.7
  command -v python2.7 2>/dev/null || true
  command -v python2 2>/dev/null || true
}

PY=
tried=()
while IFS= read -r c; do
  [[ -n "$c" ]] || continue
  tried+=("$c")
  if [[ -x "$c" ]] && usable "$c"; then PY=$c; break; fi
done < <(candidates)

if [[ -z "$PY" ]]; then
  die 3 "no usable Python 2.7 with ssl and zlib (looked at: ${tried[*]:-nothing}); point AUTOBAHN_PYTHON at one"
fi

exec 9>"$DIR.lock"
flock 9

STAMP="$DIR/.autobahn-pins"
# The stamp names everything that decides what is in DIR: the interpreter and all pins.
want=$(printf '%s\n' "$("$PY" -c 'import sys; print(sys.version.replace("\n", " "))')" "$VIRTUALENV" "$TOOLS" "$PINS")
if [[ -f "$STAMP" && "$(cat "$STAMP")" == "$want" ]] && "$DIR/bin/wstest" -a >/dev/null 2>&1; then
  say "ready already: $DIR"
  exit 0
fi

say "python: $PY"
say "making $DIR"
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_PYTHON_VERSION_WARNING=1 PYTHONWARNINGS=ignore

# virtualenv 16 is one pure-Python wheel with no requirement of its own, and carries pip and
# setuptools for 2.7, so either interpreter's pip will do to fetch it.
if ! "$PY" -m pip install -q --no-deps --target "$TMP/ve" "$VIRTUALENV" >"$TMP/log" 2>&1 &&
   ! python3 -m pip install -q --no-deps --target "$TMP/ve" "$VIRTUALENV" >>"$TMP/log" 2>&1; then
  tail -5 "$TMP/log" >&2
  die 4 "could not install $VIRTUALENV"
fi
rm -rf "$DIR"
PYTHONPATH="$TMP/ve" "$PY" -m virtualenv --no-download "$DIR" >"$TMP/log" 2>&1 || {
  tail -5 "$TMP/log" >&2; die 4 "could not make the virtual environment"; }

command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 ||
  die 4 "no C compiler (wsaccel has to be compiled): apt-get install gcc"

# shellcheck disable=SC2086  # TOOLS is a list of words
"$DIR/bin/python" -m pip install -q $TOOLS >"$TMP/log" 2>&1 || {
  tail -5 "$TMP/log" >&2; die 4 "could not install the build tools"; }
printf '%s\n' "$PINS" >"$TMP/pins.txt"
"$DIR/bin/python" -m pip install -q --no-deps --no-build-isolation -r "$TMP/pins.txt" >"$TMP/log" 2>&1 || {
  tail -15 "$TMP/log" >&2; die 4 "could not install the pinned packages"; }

"$DIR/bin/python" -m pip check >"$TMP/log" 2>&1 || { cat "$TMP/log" >&2; die 4 "the pins do not fit together"; }
"$DIR/bin/wstest" -a >"$TMP/log" 2>&1 || { tail -5 "$TMP/log" >&2; die 5 "wstest does not start"; }
"$DIR/bin/python" -c 'import wsaccel.xormask, wsaccel.utf8validator' >"$TMP/log" 2>&1 || {
  cat "$TMP/log" >&2; die 5 "wsaccel is not usable"; }
printf '%s\n' "$want" >"$STAMP"
say "ready: $DIR ($(tr '\n' ' ' < <("$DIR/bin/wstest" -a 2>/dev/null)))"
