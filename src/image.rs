//! Images made up from a seed: for the demo and for tests. Any layer can be produced again, piece by piece, at any time.

use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use shoal_core::{Algorithm, Digest, Digester};

/// The media type of an OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that a registry accepts and a runtime can unpack: each layer is a tar archive of one file of random bytes.
#[derive(Clone, Debug)]
pub struct Image {
    /// The layers.
    pub layers: Vec<Layer>,
    /// The configuration blob.
    pub config: Bytes,
    /// The manifest.
    pub manifest: Bytes,
}

/// One layer: nothing but its seed is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    seed: u64,
    file_length: u64,
    /// The digest of the archive.
    pub digest: Digest,
}

/// A tar archive's unit.
const BLOCK: u64 = 512;
/// How much of a layer is made at a time.
const CHUNK: usize = 256 << 10;

impl Image {
    /// An image of about `bytes`, in `layers` layers that get smaller: as real images are. Hashes all of it once.
    #[must_use]
    pub fn generate(bytes: u64, layers: u32, seed: u64) -> Self {
        let parts = u64::from(layers) * u64::from(layers + 1) / 2;
        let layers: Vec<Layer> = (1..=u64::from(layers))
            .rev()
            .map(|share| {
                Layer::generate(bytes * share / parts, seed.wrapping_mul(1 << 16).wrapping_add(share))
            })
            .collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Bytes::from(config.to_string());
        let described: Vec<_> = layers
            .iter()
            .map(|layer| json!({ "mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.length() }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": { "mediaType": CONFIG_TYPE, "digest": Digest::sha256(&config), "size": config.len() },
            "layers": described,
        });
        Self { layers, config, manifest: Bytes::from(manifest.to_string()) }
    }

    /// The bytes of all blobs, the manifest included.
    #[must_use]
    pub fn length(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(Layer::length).sum();
        layers + self.config.len() as u64 + self.manifest.len() as u64
    }
}

impl Layer {
    /// A layer with a file of `file_length` random bytes.
    #[must_use]
    pub fn generate(file_length: u64, seed: u64) -> Self {
        let mut layer = Self { seed, file_length, digest: Digest::sha256(b"") };
        let mut digester = Digester::new(Algorithm::Sha256);
        layer.chunks().for_each(|chunk| digester.update(&chunk));
        layer.digest = digester.finish();
        layer
    }

    /// The length of the archive in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        BLOCK + self.file_length.next_multiple_of(BLOCK) + 2 * BLOCK
    }

    /// The archive, a part at a time.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let mut random = SmallRng::seed_from_u64(self.seed);
        let (mut left, padding) = (self.file_length, self.length() - BLOCK - self.file_length);
        let file = std::iter::from_fn(move || {
            let take = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            left -= take as u64;
            (take > 0).then(|| {
                let mut chunk = BytesMut::zeroed(take);
                random.fill_bytes(&mut chunk);
                chunk.freeze()
            })
        });
        let padding = Bytes::from(vec![0; usize::try_from(padding).expect("at most three blocks")]);
        std::iter::once(self.header()).chain(file).chain(std::iter::once(padding))
    }

    /// The archive's only header (POSIX.1-1988 ustar).
    fn header(&self) -> Bytes {
        let mut block = vec![0; 512];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, &format!("layer-{:016x}", self.seed));
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", self.file_length));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_the_same_each_time_and_as_long_as_it_says() {
        for length in [0, 1, 511, 512, 513, 300_000] {
            let layer = Layer::generate(length, 7);
            let bytes = layer.chunks().collect::<Vec<_>>().concat();
            assert_eq!(bytes.len() as u64, layer.length());
            assert_eq!(Digest::sha256(&bytes), layer.digest);
        }
    }

    #[test]
    fn layers_are_archives() {
        let layer = Layer::generate(1000, 1);
        let bytes = layer.chunks().collect::<Vec<_>>().concat();
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("layer.tar");
        std::fs::write(&archive, bytes).unwrap();
        let listed = std::process::Command::new("tar").arg("tvf").arg(&archive).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success() && text.contains(" 1000 ") && text.contains("layer-"), "{text}");
    }

    #[test]
    fn an_image_has_the_size_that_was_asked_for() {
        let image = Image::generate(1_000_000, 4, 1);
        assert_eq!(image.layers.len(), 4);
        assert!((1_000_000..1_020_000).contains(&image.length()), "{}", image.length());
    }
}
