#!/bin/sh
# Makes this machine a Postern node: takes the program from the node that served this script, and
# joins that node's cluster with a token, or begins a new one without.
#
#   curl … https://NODE:8443/join | sh -s -- pj1_TOKEN
#
# Safe to run again: what is there already stays. Obeys POSTERN_BIN (the program), POSTERN_DATA,
# POSTERN_SMTP, POSTERN_WEB, POSTERN_PEER, POSTERN_ADVERTISE and POSTERN_NAME.
set -eu

# The node that serves this script fills these in.
URL='@URL@'
PIN='@PIN@'
SUM='@SUM@'
MACHINE='@MACHINE@'

UNIT=/etc/systemd/system/postern.service
SETTINGS=/etc/default/postern
# In memory, and read by systemd alone: gone with the join or the next boot.
TOKEN_FILE=/run/postern.join
# A cluster with much held mail gives a new node that much to read.
WAIT_S=120

say() { printf 'postern: %s\n' "$*"; }

fail() {
  printf 'postern: %s\n' "$*" >&2
  exit 1
}

# Everything is in functions: a script that was cut off on its way does nothing.
main() {
  TOKEN=${1:-${POSTERN_JOIN:-}}
  case $TOKEN in
    '' | pj1_*) ;;
    *) fail 'That is no join token: they begin with pj1_. Copy the whole line again.' ;;
  esac
  check_machine
  choose_places
  install_program
  if look; then
    use_running
  else
    start_node
  fi
  show_result
}

check_machine() {
  for tool in curl sha256sum; do
    command -v "$tool" >/dev/null 2>&1 || fail "This needs the program $tool. Install it, then run the same line again."
  done
  if [ "$(uname -s)" != Linux ] || [ "$(uname -m)" != "$MACHINE" ]; then
    fail "The program is for Linux on $MACHINE; this machine is $(uname -s) on $(uname -m)."
  fi
}

choose_places() {
  if [ "$(id -u)" = 0 ]; then
    BIN=${POSTERN_BIN:-/usr/local/bin/postern}
    DATA=${POSTERN_DATA:-/var/lib/postern}
  else
    BIN=${POSTERN_BIN:-$HOME/.local/bin/postern}
    DATA=${POSTERN_DATA:-$HOME/.local/share/postern}
    # Port 25 is for root.
    POSTERN_SMTP=${POSTERN_SMTP:-0.0.0.0:2525}
  fi
  # The unit makes its own data directory, and no other.
  if [ "$(id -u)" = 0 ] && [ "$DATA" = /var/lib/postern ] && [ -d /run/systemd/system ]; then
    BY_UNIT=yes
  else
    BY_UNIT=no
  fi
}

install_program() {
  IS_NEW=no
  if [ -x "$BIN" ] && { [ -z "$SUM" ] || has_sum "$BIN"; }; then
    say "$BIN is there already."
    return 0
  fi
  [ -n "$SUM" ] || fail "The node at $URL runs from source, and has no program to give. Put one at $BIN, or set POSTERN_BIN."
  say "Getting the program from $URL"
  mkdir -p "${BIN%/*}"
  NEW=$BIN.new.$$
  trap 'rm -f "$NEW"' EXIT
  fetch "$URL/join/postern" "$NEW" || fail "The program could not be fetched from $URL. Run the same line again."
  has_sum "$NEW" || fail "What came from $URL is not the program that it announced. Run the same line again."
  chmod 755 "$NEW"
  # Run before it is put in place: an older processor or C library shows now.
  "$NEW" version >/dev/null || fail 'The program does not run on this machine: it needs glibc, and a processor of the last ten years.'
  mv -f "$NEW" "$BIN"
  IS_NEW=yes
}

# curl compares the pinned key also with -k: a certificate nobody signed is enough, another key never.
fetch() {
  if [ -n "$PIN" ]; then
    curl -fsSk --pinnedpubkey "$PIN" -o "$2" "$1"
  else
    curl -fsS -o "$2" "$1"
  fi
}

has_sum() { printf '%s  %s\n' "$SUM" "$1" | sha256sum -c >/dev/null 2>&1; }

# What the node on the data directory says of itself; fails when none runs.
look() { STATUS=$("$BIN" --data "$DATA" status --json 2>/dev/null); }

is_ready() { case $STATUS in *'"ready": true'*) ;; *) return 1 ;; esac; }

# Every node of the cluster has one of these.
has_peers() { case $STATUS in *'"lagMs"'*'"lagMs"'*) ;; *) return 1 ;; esac; }

use_running() {
  if [ "$IS_NEW" = yes ]; then
    if [ "$BY_UNIT" = yes ]; then
      systemctl restart postern
      wait_ready || show_failure 'The node did not start again.'
    else
      say "The program is new. Start the node on $DATA again to use it."
    fi
  fi
  [ -n "$TOKEN" ] || return 0
  if has_peers; then
    say 'This node is in a cluster already, and is not joined again.'
    return 0
  fi
  printf '%s\n' "$TOKEN" | "$BIN" --data "$DATA" join - || exit 1
  wait_ready || show_failure 'The node has joined, and is not ready yet.'
}

start_node() {
  if [ "$BY_UNIT" = yes ]; then
    start_unit
  else
    start_process
  fi
  if wait_ready; then
    rm -f "$TOKEN_FILE" 2>/dev/null || true
    return 0
  fi
  if [ "$BY_UNIT" = yes ]; then
    # One that was refused would be refused again every two seconds.
    systemctl disable --now postern >/dev/null 2>&1 || true
    rm -f "$TOKEN_FILE"
  fi
  show_failure 'The node did not start.'
}

start_unit() {
  umask 022
  [ -e "$SETTINGS" ] || {
    printf '# What "postern serve" is told; see "postern help serve".\n'
    settings
  } >"$SETTINGS"
  unit >"$UNIT"
  if [ -n "$TOKEN" ]; then
    umask 077
    printf 'POSTERN_JOIN=%s\n' "$TOKEN" >"$TOKEN_FILE"
  fi
  systemctl daemon-reload
  systemctl reset-failed postern >/dev/null 2>&1 || true
  systemctl enable --now postern >/dev/null 2>&1 || true
}

settings() {
  [ -z "${POSTERN_SMTP:-}" ] || printf 'POSTERN_SMTP=%s\n' "$POSTERN_SMTP"
  [ -z "${POSTERN_WEB:-}" ] || printf 'POSTERN_WEB=%s\n' "$POSTERN_WEB"
  [ -z "${POSTERN_PEER:-}" ] || printf 'POSTERN_PEER=%s\n' "$POSTERN_PEER"
  [ -z "${POSTERN_ADVERTISE:-}" ] || printf 'POSTERN_ADVERTISE=%s\n' "$POSTERN_ADVERTISE"
  [ -z "${POSTERN_NAME:-}" ] || printf 'POSTERN_NAME=%s\n' "$POSTERN_NAME"
}

unit() {
  cat <<UNIT
[Unit]
Description=Postern, an SMTP security gateway
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=$BIN serve --data /var/lib/postern
EnvironmentFile=-$SETTINGS
EnvironmentFile=-$TOKEN_FILE
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=30
LimitNOFILE=65536
UMask=0077

DynamicUser=yes
User=postern
StateDirectory=postern
StateDirectoryMode=0700
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
UNIT
}

start_process() {
  umask 077
  mkdir -p "$DATA"
  export POSTERN_SMTP="${POSTERN_SMTP:-}" POSTERN_WEB="${POSTERN_WEB:-}" POSTERN_PEER="${POSTERN_PEER:-}"
  POSTERN_JOIN=$TOKEN nohup "$BIN" serve --data "$DATA" >"$DATA/serve.out" 2>"$DATA/serve.log" </dev/null &
  PID=$!
}

# Until the node takes mail, as a member of a cluster when there is a token.
wait_ready() {
  left=$WAIT_S
  while [ "$left" -gt 0 ]; do
    if look && is_ready && { [ -z "$TOKEN" ] || has_peers; }; then return 0; fi
    is_alive || return 1
    sleep 1
    left=$((left - 1))
  done
  return 1
}

is_alive() {
  if [ "$BY_UNIT" = yes ]; then
    [ "$(systemctl show -p NRestarts --value postern 2>/dev/null)" = 0 ]
  elif [ -n "${PID:-}" ]; then
    kill -0 "$PID" 2>/dev/null
  fi
}

show_failure() {
  if [ "$BY_UNIT" = yes ]; then
    journalctl -u postern -n 10 --no-pager -o cat >&2 || true
  elif [ -r "$DATA/serve.log" ]; then
    tail -n 5 "$DATA/serve.log" >&2 || true
  fi
  fail "$1 The lines above say why."
}

show_result() {
  if has_peers; then
    say 'This machine is a node of the cluster, and takes mail.'
  else
    say 'This machine is a node, and takes mail.'
    show_setup
  fi
  [ "$BY_UNIT" = yes ] || [ -z "${PID:-}" ] || {
    say "It runs as process $PID, and ends with the machine. To start it again:"
    say "  $BIN serve --data $DATA"
  }
}

show_setup() {
  code=
  if [ -r "$DATA/setup-code" ]; then read -r code <"$DATA/setup-code" || true; fi
  [ -n "$code" ] || return 0
  web=${STATUS#*'"web": "'}
  say "Set it up at ${web%%'"'*}/setup?code=$code"
}

main "$@"
