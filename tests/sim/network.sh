# Hosts as network namespaces around one bridge, each with a link that can be capped or cut: the network of tests/sim/fidelity,
# tests/bench/pulls and tests/cluster/partition. Knows nothing about Shoal. Everything is below one prefix, and only namespaces that `lay_network` made are ever removed.
# shellcheck shell=bash

# Short: the name of a bridge's port has 15 characters at most.
readonly NETWORK_PREFIX="shoal-$$"
readonly SWITCH="$NETWORK_PREFIX-switch"
readonly SUBNET=10.77.0

# Bytes that may leave at once when a link was idle: just more than one send of quinn, ten packets, has. All that is more
# is a gift that shows in the times. A script whose links are faster says so before.
readonly BURST_BYTES=${BURST_BYTES:-20000}
# What waits before a link, as time at its rate, at the host and at the switch: a switch at 10 Gbit/s with 12 MB of buffer
# has 10 ms, a host with fq_codel aims at 5 ms.
readonly QUEUE_MS=20

# Host numbers by name: the last byte of the address.
declare -A host_number

namespace() {
  printf '%s-%s' "$NETWORK_PREFIX" "$1"
}

ip_of() {
  printf '%s.%s' "$SUBNET" "${host_number[$1]}"
}

# lay_network HOST...: a namespace a host, all on one switch, without caps.
lay_network() {
  local host number=0
  ip netns add "$SWITCH"
  ip -n "$SWITCH" link add switch type bridge
  ip -n "$SWITCH" link set switch up
  for host in "$@"; do
    number=$((number + 1))
    host_number[$host]=$number
    plug_in "$host"
  done
}

plug_in() {
  local host=$1 space
  space=$(namespace "$host")
  ip netns add "$space"
  ip -n "$SWITCH" link add "$host" type veth peer name eth0 netns "$space"
  ip -n "$SWITCH" link set "$host" master switch up
  ip -n "$space" address add "$(ip_of "$host")/24" dev eth0
  ip -n "$space" link set eth0 up
  ip -n "$space" link set lo up
  ip -n "$space" route add multicast 224.0.0.0/4 dev eth0
}

# unplug HOST... and plug HOST...: the switch drops all that comes from there and goes there, without a word.
unplug() {
  local host
  for host in "$@"; do
    ip -n "$SWITCH" link set "$host" down
  done
}

plug() {
  local host
  for host in "$@"; do
    ip -n "$SWITCH" link set "$host" up
  done
}

# part HOST...: these see each other and nobody else, until `mend`.
part() {
  local host
  ip -n "$SWITCH" link add apart type bridge
  ip -n "$SWITCH" link set apart up
  for host in "$@"; do
    ip -n "$SWITCH" link set "$host" master apart
  done
}

mend() {
  local host
  for host in "${!host_number[@]}"; do
    ip -n "$SWITCH" link set "$host" master switch
  done
  ip -n "$SWITCH" link delete apart
}

# renumber HOST NUMBER: it has another address from now on, and not the one that it had.
renumber() {
  local space
  space=$(namespace "$1")
  ip -n "$space" address flush dev eth0
  host_number[$1]=$2
  ip -n "$space" address add "$(ip_of "$1")/24" dev eth0
}

# cap HOST MBITS: both directions. What the host sends waits in the host; what it gets, at the switch.
cap() {
  local host=$1 mbits=$2 shape
  shape=(tbf rate "${mbits}mbit" burst "$BURST_BYTES" limit $((mbits * 125 * QUEUE_MS + BURST_BYTES)))
  uncap "$host"
  tc -n "$(namespace "$host")" qdisc add dev eth0 root "${shape[@]}"
  tc -n "$SWITCH" qdisc add dev "$host" root "${shape[@]}"
}

uncap() {
  tc -n "$(namespace "$1")" qdisc delete dev eth0 root 2>/dev/null || true
  tc -n "$SWITCH" qdisc delete dev "$1" root 2>/dev/null || true
}

# link_counter HOST up|down bytes|drops: since the cap was laid. Bytes are those of the wire, every packet's headers included.
link_counter() {
  local where=(-n "$(namespace "$1")") device=eth0
  [[ $2 == up ]] || where=(-n "$SWITCH") device=$1
  tc "${where[@]}" -s -j qdisc show dev "$device" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0][sys.argv[1]])' "$3"
}

remove_network() {
  local host
  for host in "${!host_number[@]}"; do
    ip netns delete "$(namespace "$host")" 2>/dev/null || true
  done
  ip netns delete "$SWITCH" 2>/dev/null || true
}
