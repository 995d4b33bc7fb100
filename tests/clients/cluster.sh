# Shoal's roles as separate processes, for the scripts of tests/clients: the one place that knows Shoal's command line, its
# configuration keys and its metric names.
# shellcheck shell=bash disable=SC2034

readonly METRIC_RECEIVED=shoal_piece_bytes_received_total
readonly METRIC_SENT=shoal_piece_bytes_sent_total
readonly METRIC_PIECES=shoal_pieces_received_total
readonly FROM_PEER='source="peer"'
readonly FROM_ORIGIN='source="origin"'

# A script that needs fewer says so before.
[[ -v AGENTS ]] || AGENTS=(agent1 agent2 agent3 agent4 agent5)
[[ -v TRACKERS ]] || TRACKERS=(tracker)
readonly AGENTS TRACKERS
readonly NODES=("${TRACKERS[@]}" origin "${AGENTS[@]}")
readonly READY_SECONDS=30

# The binary of a script that says where $root is: BIN, or that of a release build.
find_shoal() {
  BIN=${BIN:-${CARGO_TARGET_DIR:-$root/target}/release/shoal}
  [[ -x $BIN ]] || (cd "$root" && cargo build --release)
  BIN=$(realpath "$BIN")
}

# Ports by "<node> <purpose>": listen, admin, api, transfer.
declare -A port

# address NODE PURPOSE: where that node serves that purpose.
address() {
  printf '127.0.0.1:%s' "${port[$1 $2]}"
}

# where NODE: the words before a command that make it run on the host of that node. None: all are on this one. A script
# whose nodes have hosts of their own says so after it has read this file, and says their addresses.
where() {
  :
}

# What a script adds to the configuration of a node: keys at its top, and tables at its end.
more_keys() {
  :
}

more_tables() {
  :
}

# The trackers, as every node has them.
tracker_urls() {
  local tracker urls=()
  for tracker in "${TRACKERS[@]}"; do
    urls+=("\"https://$(address "$tracker" listen)\"")
  done
  (IFS=, && printf '%s' "${urls[*]}")
}

choose_ports() {
  local ports node purpose at=0
  read -ra ports <<<"$(free_ports $((${#NODES[@]} * 4)))"
  for node in "${NODES[@]}"; do
    for purpose in listen admin api transfer; do
      port["$node $purpose"]=${ports[at]}
      at=$((at + 1))
    done
  done
}

role_of() {
  printf '%s' "${1%%[0-9]*}"
}

issue_certificates() {
  local node
  timeout 20 "$BIN" ca init --directory "$WORK/ca" --cluster test
  for node in "${NODES[@]}"; do
    timeout 20 "$BIN" ca issue --ca "$WORK/ca" --role "$(role_of "$node")" --name "$node" --directory "$WORK/$node"
    [[ -s $WORK/$node/ca.pem && -s $WORK/$node/cert.pem && -s $WORK/$node/key.pem ]] ||
      fail "ca issue left no ca.pem, cert.pem and key.pem for $node"
  done
}

# The three configurations. Top-level keys come before the first table.
configuration() {
  local node=$1
  printf 'listen = "%s"\nadmin = "%s"\n' "$(address "$node" listen)" "$(address "$node" admin)"
  case $(role_of "$node") in
    origin) printf 'api_listen = "%s"\n' "$(address "$node" api)" ;;
    agent) printf 'origins = ["https://%s"]\n' "$(address origin api)" ;;
  esac
  [[ $(role_of "$node") == tracker ]] || printf 'tracker = [%s]\n' "$(tracker_urls)"
  more_keys "$node"
  printf '\n[identity]\ndirectory = "%s"\n' "$WORK/$node"
  more_tables "$node"
  [[ $(role_of "$node") != tracker ]] || return 0
  printf '\n[store]\ndirectory = "%s"\n' "$WORK/stores/$node"
  # However small and full the disk of whoever runs this is.
  [[ $(role_of "$node") != agent ]] || printf 'capacity = "100%%"\nmin_free = 0\n'
  printf '\n[transfer]\nlisten = "%s"\n' "$(address "$node" transfer)"
  [[ $node != origin ]] || return 0
  printf '\n[registry.namespaces]\n"registry.example.com" = ""\n'
}

write_configurations() {
  local node
  for node in "${NODES[@]}"; do
    mkdir -p "$WORK/stores/$node"
    configuration "$node" >"$WORK/$node.toml"
  done
}

# shellcheck disable=SC2046  # `where` gives words
start_node() {
  start "$1" $(where "$1") "$BIN" "$(role_of "$1")" --config "$WORK/$1.toml"
}

# shellcheck disable=SC2046
is_ready() {
  $(where "$1") curl --silent --fail --max-time 2 --output /dev/null "http://$(address "$1" admin)/readyz"
}

node_is_ready() {
  await_ready "$READY_SECONDS" "$1" is_ready "$1"
}

start_cluster() {
  local node
  for node in "${NODES[@]}"; do
    start_node "$node"
    node_is_ready "$node"
  done
}

# metric NODE NAME [LABEL]: the value now, the sum of those that have the label.
# shellcheck disable=SC2046
metric() {
  $(where "$1") curl --silent --fail --max-time 5 "http://$(address "$1" admin)/metrics" |
    awk -v name="$2" -v label="${3:-}" '
      index($1, name) == 1 && index($0, label) { sum += $NF }
      END { printf "%.0f\n", sum }'
}

# received NODE LABEL: bytes that the node has received from that kind of source since it started.
received() {
  metric "$1" "$METRIC_RECEIVED" "$2"
}

sha256_of() {
  printf 'sha256:%s' "$(sha256sum "$1" | cut -d ' ' -f 1)"
}

# push_blob BASE FILE [WHERE...]: an upload in one request to the repository whose URL is BASE.
push_blob() {
  local base=$1 file=$2 location
  shift 2
  location=$("$@" curl --silent --show-error --fail --max-time 5 --request POST --dump-header - --output /dev/null \
    "$base/blobs/uploads/" | tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }')
  [[ $location == http* ]] || location="${base%%/v2/*}$location"
  [[ $location == *\?* ]] && location+='&' || location+='?'
  "$@" curl --silent --show-error --fail --max-time "${PUSH_SECONDS:-60}" --output /dev/null --request PUT \
    --header 'Content-Type: application/octet-stream' --upload-file "$file" "${location}digest=$(sha256_of "$file")"
}
