//! The stock registry with a password, a pipe that can be cut, and the binary with a home of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::BASE64;
use serde_json::{Value, json};
use shoal::client::Client;
use shoal::image::Image;
use shoal_core::Digest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::process::free_port;
use crate::support::eventually;

/// Debian's docker-registry, for whoever knows the password. Killed when dropped.
pub(crate) struct Stock {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

/// A user of the commands.
pub(crate) struct User {
    home: TempDir,
}

impl Stock {
    /// `None` where it is not installed; in CI it has to be.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// The same, with more keys of its `http`.
    pub(super) async fn start_with(keys: &str) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "docker-registry is not installed: apt-get install docker-registry"
            );
            eprintln!("skipped: docker-registry is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let hash = bcrypt::hash("secret", 4).unwrap();
        std::fs::write(folder.path().join("htpasswd"), format!("me:{hash}\n")).unwrap();
        let (store, users) = (folder.path().join("store"), folder.path().join("htpasswd"));
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {store:?}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"{keys}}}\nauth:\n  htpasswd: {{realm: stock, path: {users:?}}}\n"
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stock = Self { child, address, _folder: folder };
        eventually("the stock registry", async || TcpStream::connect(address).await.ok()).await;
        Some(stock)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl User {
    /// One who has logged in to those registries, as `docker login` notes it.
    pub(crate) fn logged_in(registries: &[SocketAddr]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let auth = BASE64.encode(b"me:secret");
        let auths: serde_json::Map<_, _> =
            registries.iter().map(|address| (address.to_string(), json!({ "auth": auth }))).collect();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), json!({ "auths": auths }).to_string())
            .unwrap();
        Self { home }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a command to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        eprintln!("shoal {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs it with `--json`; it has to succeed.
    pub(crate) fn does(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that has to fail: its exit status, and what it says.
    pub(super) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).stdin(Stdio::null());
        command.current_dir(self.home.path());
        command
    }
}

/// An index of two images that share a layer's worth of nothing, as multi-platform images are.
pub(super) struct Index {
    pub(super) bytes: Vec<u8>,
    pub(super) images: [Image; 2],
}

impl Index {
    pub(super) async fn push(client: &Client, repository: &str, tag: &str) -> Self {
        let images = [Image::generate(3 << 20, 2, 71), Image::generate(2 << 20, 3, 72)];
        let mut entries = Vec::new();
        for (image, architecture) in images.iter().zip(["amd64", "arm64"]) {
            client.push(repository, architecture, image, |_| ()).await.unwrap();
            entries.push(json!({
                "mediaType": shoal::image::MANIFEST_TYPE, "size": image.manifest.len(),
                "digest": Digest::sha256(&image.manifest), "platform": { "os": "linux", "architecture": architecture },
            }));
        }
        let bytes = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries })
            .to_string()
            .into_bytes();
        client.push_manifest(repository, tag, INDEX_TYPE, bytes.clone().into()).await.unwrap();
        Self { bytes, images }
    }

    pub(super) fn digest(&self) -> String {
        Digest::sha256(&self.bytes).to_string()
    }

    pub(super) fn blobs(&self) -> u64 {
        self.images.iter().map(|image| image.layers.len() as u64 + 1).sum()
    }
}

/// A connection to a registry that somebody else's network is in between.
pub(super) struct Pipe {
    pub(super) address: SocketAddr,
    /// How many bytes went, either way.
    passed: Arc<AtomicU64>,
    /// How many may go before nothing does.
    gate: Arc<AtomicU64>,
    /// How many connections are still to be cut.
    cuts: Arc<AtomicU64>,
}

impl Pipe {
    /// To `target`; a connection is cut after `cut` bytes, and from `gate` bytes on nothing passes.
    pub(super) async fn to(target: SocketAddr, cut: u64, gate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(gate)));
        let pipe = Self { address, passed, gate, cuts: Arc::new(AtomicU64::new(u64::MAX)) };
        let (passed, gate, cuts) = (Arc::clone(&pipe.passed), Arc::clone(&pipe.gate), Arc::clone(&pipe.cuts));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(
                    client,
                    target,
                    cut,
                    Arc::clone(&passed),
                    Arc::clone(&gate),
                    Arc::clone(&cuts),
                ));
            }
        });
        pipe
    }

    /// The same, but only so many connections are cut.
    pub(super) fn cutting(self, connections: u64) -> Self {
        self.cuts.store(connections, Ordering::SeqCst);
        self
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Lets everything through from now on.
    pub(super) fn open(&self) {
        self.gate.store(u64::MAX, Ordering::SeqCst);
    }
}

async fn connect(
    client: TcpStream,
    target: SocketAddr,
    cut: u64,
    passed: Arc<AtomicU64>,
    gate: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let own = AtomicU64::new(0);
    let may_go = || {
        let left = own.load(Ordering::SeqCst) <= cut;
        left || cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |cuts| cuts.checked_sub(1)).is_err()
    };
    let up = pass(&mut from_client, &mut to_server, &may_go, &own, &passed, &gate);
    let down = pass(&mut from_server, &mut to_client, &may_go, &own, &passed, &gate);
    // Whichever ends, the connection does.
    tokio::select! { () = up => (), () = down => () }
}

async fn pass(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    may_go: &impl Fn() -> bool,
    own: &AtomicU64,
    passed: &AtomicU64,
    gate: &AtomicU64,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        while passed.load(Ordering::SeqCst) > gate.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        passed.fetch_add(count as u64, Ordering::SeqCst);
        own.fetch_add(count as u64, Ordering::SeqCst);
        if !may_go() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// The digests of all blobs of a layout, each checked.
pub(super) fn layout_blobs(folder: &Path) -> Vec<String> {
    let mut found: Vec<_> = std::fs::read_dir(folder.join("blobs/sha256"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(Digest::sha256(&std::fs::read(entry.path()).unwrap()).hex(), name);
            name
        })
        .collect();
    found.sort();
    found
}

pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
