#!/usr/bin/env python3
"""Writes the images that the scripts of tests/clients push: no network, no base image, python's standard library only.

archive OUT      a docker-archive of five layers, over 200 MB of it incompressible; prints the image id
index DIRECTORY  an OCI layout with an index of two platforms, tag 1; prints the index's digest
image DIRECTORY  an OCI layout with an image of three layers, tag 1: 1 KiB, 3 MiB, 40 MiB; prints its digest
layers           reads a manifest from stdin, prints "<digest> <size>" of its configuration and of each layer
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

MIB = 1 << 20
# What a layer of machine files takes at most: enough for real file trees, small enough to compress in seconds.
TREE_BYTES = 24 * MIB
# Three of these alone reach 200 MB on the wire, on the barest machine.
NOISE_BYTES = 68 * MIB

OCI = "application/vnd.oci.image"


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def noise(seed, length):
    """Bytes that no compressor shrinks and every run repeats."""
    return hashlib.shake_256(seed.encode()).digest(length)


def entry(name, size=0, mode=0o644):
    """A tar header that is the same on every run: no owner, no time."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, mode
    return header


def tar_of(files):
    """A layer of (name, content) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files:
            tar.addfile(entry(name, len(content)), io.BytesIO(content))
    return out.getvalue()


def tree_paths(top):
    """Every path below `top`, in one order, directories before what they hold."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        yield folder
        yield from (os.path.join(folder, name) for name in sorted(files))


def add_path(tar, path):
    """Adds a directory, link or regular file; returns the bytes it added."""
    name = path.lstrip("/")
    if os.path.islink(path):
        link = entry(name, mode=0o777)
        link.type, link.linkname = tarfile.SYMTYPE, os.readlink(path)
        tar.addfile(link)
    elif os.path.isdir(path):
        folder = entry(name, mode=0o755)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    elif os.path.isfile(path):
        with open(path, "rb") as file:
            content = file.read()
        tar.addfile(entry(name, len(content), os.stat(path).st_mode & 0o777), io.BytesIO(content))
        return len(content)
    return 0


def tar_of_tree(top):
    """A layer with the first TREE_BYTES of a real file tree: links, directories and many small files."""
    out, taken = io.BytesIO(), 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in tree_paths(top):
            taken += add_path(tar, path)
            if taken >= TREE_BYTES:
                break
    return out.getvalue()


def configuration(architecture, layers):
    """The image configuration that names the uncompressed layers."""
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)],
    }
    return json.dumps(document, sort_keys=True).encode()


def write_archive(out):
    layers = [tar_of_tree("/usr/bin"), tar_of_tree("/usr/share")]
    layers += [tar_of([(f"data/noise-{n}", noise(f"layer {n}", NOISE_BYTES))]) for n in range(3)]
    config = configuration("amd64", layers)
    names = [f"layer-{n}.tar" for n, _ in enumerate(layers)]
    manifest = [{"Config": "config.json", "RepoTags": ["bench/app:1"], "Layers": names}]
    files = [("config.json", config), *zip(names, layers), ("manifest.json", json.dumps(manifest).encode())]
    with tarfile.open(out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files:
            tar.addfile(entry(name, len(content)), io.BytesIO(content))
    return digest_of(config)


class Layout:
    """An OCI image layout on disk."""

    def __init__(self, directory):
        self.directory = directory
        os.makedirs(os.path.join(directory, "blobs", "sha256"))

    def put(self, media_type, content):
        """Writes a blob and returns its descriptor."""
        digest = digest_of(content)
        with open(os.path.join(self.directory, "blobs", *digest.split(":")), "wb") as file:
            file.write(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def put_json(self, media_type, document):
        return self.put(media_type, json.dumps(document, sort_keys=True).encode())

    def put_image(self, architecture, sizes=(2 * MIB,)):
        """Writes an image with layers of these sizes and returns its descriptor with a platform."""
        names = [architecture, *(f"{architecture}-{number}" for number in range(1, len(sizes)))]
        layers = [tar_of([(f"data/{name}", noise(name, size))]) for name, size in zip(names, sizes)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.put(f"{OCI}.config.v1+json", configuration(architecture, layers)),
            "layers": [self.put(f"{OCI}.layer.v1.tar+gzip", gzip.compress(layer, mtime=0)) for layer in layers],
        }
        descriptor = self.put_json(manifest["mediaType"], manifest)
        return {**descriptor, "platform": {"os": "linux", "architecture": architecture}}

    def tag(self, descriptor, name):
        """Writes the entry point that names `descriptor`."""
        top = {"schemaVersion": 2, "manifests": [{**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}]}
        for file_name, document in (("index.json", top), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
            with open(os.path.join(self.directory, file_name), "w", encoding="utf-8") as file:
                json.dump(document, file)


def write_index(directory):
    layout = Layout(directory)
    index = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": [layout.put_image(architecture) for architecture in ("amd64", "arm64")],
    }
    descriptor = layout.put_json(index["mediaType"], index)
    layout.tag(descriptor, "1")
    return descriptor["digest"]


def write_image(directory):
    layout = Layout(directory)
    descriptor = layout.put_image("amd64", (1024, 3 * MIB, 40 * MIB))
    layout.tag(descriptor, "1")
    return descriptor["digest"]


def list_layers(manifest):
    blobs = [manifest["config"], *manifest["layers"]]
    return "\n".join(f"{blob['digest']} {blob['size']}" for blob in blobs)


def main(arguments):
    match arguments:
        case ["archive", out]:
            print(write_archive(out))
        case ["index", directory]:
            print(write_index(directory))
        case ["image", directory]:
            print(write_image(directory))
        case ["layers"]:
            print(list_layers(json.load(sys.stdin)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
