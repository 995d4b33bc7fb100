//! What a path costs to read and to write: `cargo bench -p shoal-driver`.

use divan::{Bencher, black_box};
use shoal_core::Digest;
use shoal_driver::{DriverPath, RegistryPath};

fn main() {
    divan::main();
}

fn blob() -> String {
    let digest = Digest::sha256(b"blob").to_string();
    let (_, hex) = digest.split_once(':').expect("a digest has an algorithm");
    format!("/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2])
}

fn layer() -> String {
    let hex = Digest::sha256(b"blob").to_string().replace(':', "/");
    format!("/docker/registry/v2/repositories/library/team/project/_layers/{hex}/link")
}

fn tag() -> String {
    "/docker/registry/v2/repositories/library/team/project/_manifests/tags/v1.2.3/current/link".to_owned()
}

#[divan::bench(args = [tag(), layer(), blob()])]
fn parse(bencher: Bencher<'_, '_>, path: &str) {
    let path = DriverPath::parse(path).expect("valid");
    bencher.bench_local(|| RegistryPath::parse(black_box(&path)));
}

#[divan::bench(args = [tag(), layer(), blob()])]
fn write(bencher: Bencher<'_, '_>, path: &str) {
    let path = RegistryPath::parse(&DriverPath::parse(path).expect("valid")).expect("of the layout");
    bencher.bench_local(|| black_box(&path).to_driver_path());
}
