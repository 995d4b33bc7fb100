//! A real redis-server.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::free_port;
use crate::support::eventually;

/// A server that keeps nothing on disk. Killed when dropped.
pub(super) struct Redis {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    keys: String,
    child: Child,
}

const PASSWORD: &str = "open sesame";

impl Redis {
    /// `None` where there is no such program, unless that is not allowed: `CI` is set.
    pub(super) async fn start() -> Option<Self> {
        Self::start_with(|port, _| Options {
            server: vec!["--port".into(), port.to_string()],
            keys: format!("url = \"redis://127.0.0.1:{port}\"\n"),
        })
        .await
    }

    /// The same behind TLS and a password, which trackers have from files.
    pub(super) async fn start_closed() -> Option<Self> {
        Self::start_with(|port, folder| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate =
                rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
            let file = |name: &str, content: &str| {
                let path = folder.join(name).to_str().unwrap().to_owned();
                std::fs::write(&path, content).unwrap();
                path
            };
            let certificate = file("cert.pem", &certificate.pem());
            let (key, password) = (file("key.pem", &key.serialize_pem()), file("password", PASSWORD));
            let server = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
            let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--requirepass", PASSWORD];
            Options {
                server: [&server[..], &files[..]].concat().into_iter().map(str::to_owned).collect(),
                keys: format!(
                    "url = \"rediss://localhost:{port}\"\nca = {certificate:?}\npassword_file = {password:?}\n"
                ),
            }
        })
        .await
    }

    async fn start_with(options: impl FnOnce(u16, &Path) -> Options) -> Option<Self> {
        let there = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if there.is_err() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is missing: install Debian's package");
            eprintln!("skipped: there is no redis-server");
            return None;
        }
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let Options { server, keys } = options(port, folder.path());
        let child = run(&server, &folder);
        let redis = Self { port, folder, options: server, keys, child };
        redis.ready().await;
        Some(redis)
    }

    /// The table of a tracker's configuration.
    pub(super) fn table(&self) -> String {
        format!("[redis]\n{}timeout = \"300ms\"\nconnect_timeout = \"1s\"\n", self.keys)
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// With nothing in it.
    pub(super) async fn restart(&mut self) {
        self.child = run(&self.options, &self.folder);
        self.ready().await;
    }

    /// `-STOP` or `-CONT`.
    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// What somebody else does there; says what the server answers.
    pub(super) fn command(&self, words: &[&str]) -> String {
        let output =
            Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    async fn ready(&self) {
        eventually("redis-server", async || TcpStream::connect(("127.0.0.1", self.port)).await.ok()).await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Options {
    server: Vec<String>,
    /// Of a tracker's `[redis]`.
    keys: String,
}

fn run(options: &[String], folder: &TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(options).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder.path()).stdout(Stdio::null());
    command.spawn().unwrap()
}
