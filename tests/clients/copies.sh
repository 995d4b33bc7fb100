# `shoal push`, `pull` and `copy` beside skopeo and docker, for tests/clients/run: layouts and archives that one wrote and the
# other reads, in both directions, with the digests that they had.
# shellcheck shell=bash

shoal_() {
  timeout 120 env HOME="$WORK/home" "$BIN" "$@"
}

# raw_digest REFERENCE: the digest of the manifest that a tag means, by skopeo.
raw_digest() {
  printf 'sha256:%s' "$(timeout 20 skopeo inspect --raw --tls-verify=false "docker://$1" | sha256sum | cut -d ' ' -f 1)"
}

# config_digest REFERENCE: that of the image's configuration, which docker calls the image's id.
config_digest() {
  timeout 20 skopeo inspect --raw --tls-verify=false "docker://$1" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["config"]["digest"])'
}

shoal_pushes_layouts_of_skopeo() {
  local origin
  origin=$(address origin listen)
  timeout 120 skopeo copy --quiet --all --src-tls-verify=false "docker://$origin/$MULTI:1" "oci:$WORK/by-skopeo:1"
  timeout 120 skopeo copy --quiet --all --src-tls-verify=false "docker://$origin/$MULTI:1" "oci-archive:$WORK/by-skopeo.tar:1"
  shoal_ push "oci:$WORK/by-skopeo:1" "$origin/copies/layout:1"
  expect "the digest of the layout" "$(raw_digest "$origin/copies/layout:1")" "$(fact index-digest)"
  shoal_ push "oci-archive:$WORK/by-skopeo.tar" "$origin/copies/archive:1"
  expect "the digest of the archive" "$(raw_digest "$origin/copies/archive:1")" "$(fact index-digest)"
}

skopeo_pushes_layouts_of_shoal() {
  local origin form
  origin=$(address origin listen)
  for form in "oci:$WORK/by-shoal:1" "oci-archive:$WORK/by-shoal.tar:1"; do
    shoal_ pull "$origin/$MULTI:1" "$form"
    timeout 120 skopeo copy --quiet --all --preserve-digests --dest-tls-verify=false "$form" "docker://$origin/copies/back:1"
    expect "the digest of $form" "$(raw_digest "$origin/copies/back:1")" "$(fact index-digest)"
    shoal_ delete "$origin/copies/back:1"
  done
}

# The configuration stays byte for byte, and with it what docker calls the image.
shoal_pushes_archives_of_docker_and_skopeo() {
  local origin
  origin=$(address origin listen)
  timeout 120 skopeo copy --quiet --src-tls-verify=false "docker://$origin/$APP:1" "docker-archive:$WORK/skopeo-saved.tar:copies/app:1"
  shoal_ push "docker-archive:$WORK/skopeo-saved.tar:copies/app:1" "$origin/copies/saved:1"
  expect "the id of skopeo's archive" "$(config_digest "$origin/copies/saved:1")" "$(config_digest "$origin/$APP:1")"
  docker_ save --output "$WORK/docker-saved.tar" "$(fact image-id)"
  shoal_ push "docker-archive:$WORK/docker-saved.tar" "$origin/copies/saved:2"
  expect "the id of docker's archive" "$(config_digest "$origin/copies/saved:2")" "$(fact image-id)"
}

docker_loads_archives_of_shoal() {
  shoal_ pull "$(address origin listen)/$APP:1" "docker-archive:$WORK/shoal-saved.tar:copies/loaded:1"
  docker_ load --quiet --input "$WORK/shoal-saved.tar"
  expect "the id of the loaded image" "$(docker_ image inspect --format '{{.Id}}' copies/loaded:1)" "$(fact image-id)"
}

copies_checks() {
  check "shoal pushes layouts that skopeo wrote, bit by bit" shoal_pushes_layouts_of_skopeo
  check "skopeo pushes layouts that shoal wrote, bit by bit" skopeo_pushes_layouts_of_shoal
  check "shoal pushes what docker and skopeo saved" shoal_pushes_archives_of_docker_and_skopeo
  check "docker loads what shoal saved" docker_loads_archives_of_shoal
}
