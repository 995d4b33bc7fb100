# An origin with passwords on which everybody may pull: what each client does with it, logged in and not.
# shellcheck shell=bash disable=SC2317

# In no cluster: its registry is all that is asked. Of the kind of origin1, origin2, ...
readonly GUARDED=origin9
readonly PUSHER=pusher PASSWORD=push-only
# `htpasswd -nbBC 5 pusher push-only`
readonly HTPASSWD='pusher:$2y$05$d8rLhAbeSXvkuJuKaFFjvudP1KH0t66fQxr6oJCALMCyMPbWznasS'
readonly TEAM=team/tiny

choose_guarded_ports() {
  local ports at=0 purpose
  read -ra ports <<<"$(free_ports 4)"
  for purpose in listen admin api transfer; do
    port["$GUARDED $purpose"]=${ports[at]}
    at=$((at + 1))
  done
}

# Beside a tracker that is not there: it serves its registry all the same.
write_guarded() {
  timeout 20 "$BIN" ca issue --ca "$WORK/ca" --role origin --name "$GUARDED" --directory "$WORK/$GUARDED"
  mkdir -p "$WORK/stores/$GUARDED"
  echo "$HTPASSWD" >"$WORK/htpasswd"
  configuration "$GUARDED" >"$WORK/$GUARDED.toml"
  sed -i 's|^tracker = .*|tracker = ["https://127.0.0.1:1"]|' "$WORK/$GUARDED.toml"
  cat >>"$WORK/$GUARDED.toml" <<TOML

[auth.htpasswd]
file = "$WORK/htpasswd"

[[auth.rules]]
repositories = "**"
identities = ["$PUSHER"]
allow = ["pull", "push", "delete"]

[[auth.rules]]
repositories = "**"
identities = [""]
allow = ["pull"]
TOML
}

guarded_answers() {
  write_guarded
  start_node "$GUARDED"
  await_ready "$READY_SECONDS" "$GUARDED" base_is 401
}

base_is() {
  [[ $(status_of "http://$(address "$GUARDED" listen)/v2/") == "$1" ]]
}

guarded_name() {
  printf 'localhost:%s/%s' "${port[$GUARDED listen]}" "$1"
}

# is_refused COMMAND...: the command fails, and says that it is for want of a right to do so.
is_refused() {
  local said status=0
  said=$("$@" 2>&1) || status=$?
  echo "$said"
  ((status != 0)) || fail "it was not refused"
  grep -qiE 'unauthorized|authentication required|denied|401|insufficient_scope' <<<"$said" || fail "it failed otherwise: $said"
}

skopeo_needs_its_password() {
  local to
  to="docker://$(guarded_name "$MULTI"):1"
  is_refused skopeo copy --all --dest-tls-verify=false "oci:$WORK/multi:1" "$to"
  is_refused skopeo copy --all --dest-tls-verify=false --dest-creds "$PUSHER:wrong" "oci:$WORK/multi:1" "$to"
  timeout 120 skopeo copy --all --dest-tls-verify=false --dest-creds "$PUSHER:$PASSWORD" "oci:$WORK/multi:1" "$to"
}

skopeo_pulls_anonymously() {
  local into="$WORK/copies/anonymous"
  mkdir -p "$into"
  timeout 120 skopeo copy --all --src-tls-verify=false "docker://$(guarded_name "$MULTI"):1" "dir:$into"
  hashes_are_names "$into"
}

docker_needs_its_login() {
  local name
  name="$(guarded_name "$TEAM"):1"
  tar -C "$here" -c run | docker_ import - "$name"
  is_refused docker_ push "$name"
  is_refused docker_ login --username "$PUSHER" --password wrong "${name%%/*}"
  docker_ login --username "$PUSHER" --password "$PASSWORD" "${name%%/*}"
  docker_ push "$name"
  docker_ rmi "$name"
  docker_ pull "$name"
  docker_ logout "${name%%/*}"
}

docker_pulls_anonymously() {
  local name
  name="$(guarded_name "$TEAM"):1"
  docker_ rmi "$name"
  docker_ pull "$name"
  is_refused docker_ push "$name"
  docker_ rmi "$name"
}

podman_needs_its_login() {
  local name
  name="$(guarded_name "$TEAM")"
  write_registries_conf "$WORK/podman-registries.conf" "$(address agent3 listen)"
  podman_ pull --quiet --tls-verify=false "$name:1"
  is_refused podman_ push --tls-verify=false "$name:1" "$name:podman"
  podman_ login --tls-verify=false --username "$PUSHER" --password "$PASSWORD" "${name%%/*}"
  podman_ push --tls-verify=false "$name:1" "$name:podman"
  podman_ logout "${name%%/*}"
  expect "the status of podman's tag" "$(status_of "http://$(address "$GUARDED" listen)/v2/$TEAM/manifests/podman")" 200
}

# Into another repository: containerd 1.6 hangs when the manifest is the first thing that it is refused, as where all
# blobs are there already.
containerd_needs_its_password() {
  local from to
  from="$(guarded_name "$TEAM"):1" to="$(guarded_name team/containerd):1"
  ctr_ images pull --plain-http --snapshotter "$(snapshotter)" "$from" | tail -n 1
  ctr_ images tag "$from" "$to"
  is_refused timeout 60 ctr --address "$WORK/containerd.sock" images push --plain-http "$to"
  ctr_ images push --plain-http --user "$PUSHER:$PASSWORD" "$to" | tail -n 1
  expect "the status of containerd's tag" "$(status_of "http://$(address "$GUARDED" listen)/v2/team/containerd/manifests/1")" 200
}

no_log_has_the_password() {
  ! grep -q "$PASSWORD" "$WORK/logs/$GUARDED.log" || fail "the origin logged the password"
}

access_checks() {
  check "skopeo pushes to an origin with passwords only with its own" skopeo_needs_its_password
  check "skopeo pulls from it without one" skopeo_pulls_anonymously
  check "docker pushes to it once it is logged in" docker_needs_its_login
  check "docker pulls from it without a login" docker_pulls_anonymously
  check "podman pulls without a login, and pushes with one" podman_needs_its_login
  check "containerd pulls without a password, and pushes with one" containerd_needs_its_password
  check "no log has the password" no_log_has_the_password
}
