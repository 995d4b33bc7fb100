# Real clients for tests/clients/run: dockerd, containerd, podman and skopeo, each with its own state below $WORK, so that
# nothing that is installed or configured on the machine is used, and nothing of it is changed. One exception that
# cannot be moved for root: podman and skopeo note which blobs they saw in /var/lib/containers/cache.
# shellcheck shell=bash

# The registry name that clients with mirrors use; no such host is ever asked.
readonly UPSTREAM=registry.example.com
# A bound for a client that hangs, not a target: 230 MB take seconds, a first unpack on a busy machine may take a minute.
readonly PULL_SECONDS=180

isolate_clients() {
  export HOME="$WORK/home" TMPDIR="$WORK/tmp" XDG_RUNTIME_DIR="$WORK/tmp"
  export DOCKER_HOST="unix://$WORK/docker.sock" DOCKER_CONFIG="$WORK/home/docker"
  # podman reads the same file, and wants it to exist.
  mkdir "$DOCKER_CONFIG"
  echo '{}' >"$DOCKER_CONFIG/config.json"
  # curl, unlike the Go clients, would ask a proxy for loopback addresses too.
  unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
}

# --- containerd ---------------------------------------------------------------------------------------------

# Without the CRI plugin: it would want CNI and a streaming port, and `ctr` does not use it. Without the opt plugin: it
# would make /opt/containerd.
start_containerd() {
  cat >"$WORK/containerd.toml" <<TOML
version = 2
root = "$WORK/containerd"
state = "$WORK/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$WORK/containerd.sock"
TOML
  start containerd containerd --log-level warn --config "$WORK/containerd.toml"
  await_ready 30 containerd ctr_ version
}

ctr_() {
  timeout "$PULL_SECONDS" ctr --address "$WORK/containerd.sock" "$@"
}

# overlayfs where the kernel and the file system below $WORK allow it; native copies always work.
snapshotter() {
  if ctr_ plugins ls | awk '$2 == "overlayfs" && $NF == "ok" { found = 1 } END { exit !found }'; then
    echo overlayfs
  else
    echo native
  fi
}

# A host that differs from the image's registry makes containerd add `?ns=<registry>` to every request.
write_hosts_toml() {
  mkdir -p "$WORK/hosts/$UPSTREAM"
  cat >"$WORK/hosts/$UPSTREAM/hosts.toml" <<TOML
server = "https://$UPSTREAM"
[host."http://$1"]
  capabilities = ["pull", "resolve"]
TOML
}

# --- docker -------------------------------------------------------------------------------------------------

# overlay2 does not work on top of overlayfs (a container's own root): then vfs, which copies and works anywhere.
start_dockerd() {
  local driver
  # The classic image store, also where the containerd store is the default: its image id is the configuration's digest.
  echo '{"features": {"containerd-snapshotter": false}}' >"$WORK/dockerd.json"
  for driver in overlay2 vfs; do
    run_dockerd "$driver"
    if await_ready 40 "dockerd-$driver" timeout 5 docker version; then
      echo "dockerd uses $driver"
      return 0
    fi
    signal TERM "dockerd-$driver"
    await 15 "the end of dockerd-$driver" has_ended "dockerd-$driver" || return 1
  done
  return 1
}

# --config-file   /etc/docker/daemon.json may set the same options, which dockerd refuses.
# --containerd    otherwise dockerd takes a running system containerd, or starts one that outlives a kill.
# --bridge=none, --iptables=false, --ip6tables=false
#                 no container is run: no need to touch the machine's network, or to need iptables and its modules.
run_dockerd() {
  start "dockerd-$1" dockerd \
    --log-level warn --config-file "$WORK/dockerd.json" --containerd "$WORK/containerd.sock" \
    --host "$DOCKER_HOST" --pidfile "$WORK/dockerd.pid" \
    --data-root "$WORK/docker-$1" --exec-root "$WORK/docker-state" \
    --storage-driver "$1" --bridge=none --iptables=false --ip6tables=false
}

docker_() {
  timeout "$PULL_SECONDS" docker "$@"
}

# The repository digest under which docker knows an image.
docker_digest() {
  docker_ image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$1" | sed -n "s|^${1%:*}@||p"
}

# --- podman and skopeo --------------------------------------------------------------------------------------

# write_registries_conf FILE MIRROR: neither client sends `?ns=`; the mirror stands for the registry as a whole.
write_registries_conf() {
  cat >"$1" <<TOML
unqualified-search-registries = []
[[registry]]
prefix = "$UPSTREAM"
location = "$UPSTREAM"
[[registry.mirror]]
location = "$2"
insecure = true
TOML
}

# --storage-driver vfs    needs no mount and no fuse.
# --cgroup-manager, --events-backend, --tmpdir
#                         keep podman off systemd, the journal and /run/libpod.
podman_() {
  CONTAINERS_REGISTRIES_CONF="$WORK/podman-registries.conf" timeout "$PULL_SECONDS" podman \
    --root "$WORK/podman" --runroot "$WORK/podman-run" --tmpdir "$WORK/podman-tmp" \
    --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "$@"
}

# skopeo_by AGENT ARGUMENTS...: skopeo with a configuration whose mirror is that agent.
skopeo_by() {
  write_registries_conf "$WORK/skopeo-registries.conf" "$(address "$1" listen)"
  shift
  timeout "$PULL_SECONDS" skopeo --registries-conf "$WORK/skopeo-registries.conf" --tmpdir "$WORK/tmp" "$@"
}
