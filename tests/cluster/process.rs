//! Roles as processes of the real binary, for what only a process can show: SIGKILL, SIGTERM, memory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::Value;
use shoal::client::Client;
use shoal_core::Role;
use tempfile::TempDir;

/// A running role. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    registry: Option<SocketAddr>,
    admin: SocketAddr,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// A cluster of processes.
pub(crate) struct Processes {
    folder: TempDir,
    pub(crate) tracker: Process,
    tracker_url: String,
    pub(crate) origin: Process,
    origin_url: String,
}

/// How long a role may take to come up.
const START: Duration = Duration::from_secs(30);

impl Processes {
    /// Starts a tracker and an origin.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, with more tables in the origin's configuration.
    pub(crate) async fn start_with(origin_tables: &str) -> Self {
        shoal_identity::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        shoal(&["ca", "init", "--directory", ca.to_str().unwrap()]);
        let tracker_port = free_port();
        let (tracker_url, api_port) = (format!("https://127.0.0.1:{tracker_port}"), free_port());
        let origin_url = format!("https://127.0.0.1:{api_port}");

        let config = format!("listen = \"127.0.0.1:{tracker_port}\"\n");
        let tracker = Process::spawn(folder.path(), Role::Tracker, "tracker", &config);
        let config = format!(
            "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:{api_port}\"\ntracker = [\"{tracker_url}\"]\n{origin_tables}{}",
            stored(folder.path(), "origin", "")
        );
        let origin = Process::spawn(folder.path(), Role::Origin, "origin", &config);
        let processes = Self { folder, tracker, tracker_url, origin, origin_url };
        processes.origin.ready().await;
        processes
    }

    /// Starts an agent, or one of that name again.
    pub(crate) async fn agent(&self, name: &str) -> Process {
        self.agent_with(name, "capacity = \"100%\"\n", "").await
    }

    /// The same with other keys of `[store]`, one a line, and with more of a configuration, which begins with a table.
    pub(crate) async fn agent_with(&self, name: &str, store: &str, more: &str) -> Process {
        let (tracker, origin) = (&self.tracker_url, &self.origin_url);
        self.agent_by(name, &format!("tracker = [{tracker:?}]\norigins = [{origin:?}]"), store, more).await
    }

    /// The same with no tracker and no origin.
    pub(crate) async fn agent_alone(&self, name: &str, more: &str) -> Process {
        self.agent_by(name, "tracker = []\norigins = []", "capacity = \"100%\"\n", more).await
    }

    async fn agent_by(&self, name: &str, servers: &str, store: &str, more: &str) -> Process {
        let config = format!(
            "listen = \"127.0.0.1:0\"\n{servers}\n{}{more}",
            // However full the disk of whoever runs the tests is.
            stored(self.folder.path(), name, &format!("min_free = 0\n{store}"))
        );
        let agent = Process::spawn(self.folder.path(), Role::Agent, name, &config);
        agent.ready().await;
        agent
    }

    /// Starts an origin beside the first, or one of that name again. It answers, and may not have met the tracker yet.
    pub(crate) fn another_origin(&self, name: &str) -> Process {
        let config = format!(
            "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\ntracker = [\"{}\"]\n{}",
            self.tracker_url,
            stored(self.folder.path(), name, "")
        );
        Process::spawn(self.folder.path(), Role::Origin, name, &config)
    }

    pub(crate) fn tracker_url(&self) -> &str {
        &self.tracker_url
    }

    /// Starts an origin whose store is a file system of that many bytes, in a mount namespace of its own: nobody else sees
    /// it, and it goes with the process.
    pub(crate) fn origin_on_small_disk(&self, name: &str, bytes: usize, min_free: &str) -> Process {
        let config = format!(
            "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\ntracker = [\"{}\"]\nmin_free = \"{min_free}\"\n{}",
            self.tracker_url,
            stored(self.folder.path(), name, "")
        );
        let store = self.folder.path().join(name).join("data");
        std::fs::create_dir_all(&store).unwrap();
        let mount = format!("mount -t tmpfs -o size={bytes} shoal {store:?} && exec \"$@\"");
        let mut command = Command::new("unshare");
        // Who is not root becomes it in a namespace of users.
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(binary(self.folder.path()));
        Process::spawn_by(command, self.folder.path(), Role::Origin, name, &config)
    }

    /// Where a role keeps its files.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Process {
    fn spawn(folder: &Path, role: Role, name: &str, config: &str) -> Self {
        Self::spawn_by(Command::new(binary(folder)), folder, role, name, config)
    }

    /// By a command to which only the arguments of the role are missing.
    fn spawn_by(mut command: Command, folder: &Path, role: Role, name: &str, config: &str) -> Self {
        let home = folder.join(name);
        let identity = home.join("identity");
        if !identity.exists() {
            let (ca, identity) = (folder.join("ca"), identity.to_str().unwrap());
            let ca = ca.to_str().unwrap();
            shoal(&[
                "ca",
                "issue",
                "--ca",
                ca,
                "--role",
                role.as_str(),
                "--name",
                name,
                "--directory",
                identity,
            ]);
        }
        let file = home.join("config.toml");
        let head = format!("admin = \"127.0.0.1:0\"\n{config}[identity]\ndirectory = {identity:?}\n");
        std::fs::write(&file, head).unwrap();
        command.args([
            role.as_str(),
            "--config",
            file.to_str().unwrap(),
            "--log",
            "info",
            "--log-format",
            "json",
        ]);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let admin = ([127, 0, 0, 1], 0).into();
        let mut process = Self { child, registry: None, admin, complaints: Arc::default() };
        let lines = process.log(name);
        loop {
            let line = lines.recv_timeout(START).unwrap_or_else(|_| panic!("{name} did not come up"));
            let event: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            let address = |field: &str| event[field].as_str().map(|text| text.parse().unwrap());
            process.registry = process.registry.or_else(|| address("registry"));
            if event["message"] == "admin port is up" {
                process.admin = address("address").unwrap();
                return process;
            }
        }
    }

    /// Its log, line by line; also printed, for a test that fails.
    fn log(&mut self, name: &str) -> mpsc::Receiver<String> {
        let stderr = BufReader::new(self.child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        let (name, complaints) = (name.to_owned(), Arc::clone(&self.complaints));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{name}: {line}");
                if line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"") {
                    complaints.lock().unwrap().push(line.clone());
                }
                let _ = sender.send(line);
            }
        });
        lines
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.registry()).unwrap()
    }

    /// Where its registry listens.
    pub(crate) fn registry(&self) -> SocketAddr {
        self.registry.expect("this role has a registry")
    }

    /// The warnings and errors that it has logged.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: its ports stay open, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// SIGTERM; whether it ended with success.
    pub(crate) async fn terminate(mut self) -> bool {
        self.signal("-TERM");
        let status = tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap();
        status.success()
    }

    /// The most memory the process ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The memory that it has now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// How many files and sockets it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The value of a metric, its labels included in `name`; 0 if there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("metrics").await.1;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Asks the admin port.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let response = Client::new(self.admin).unwrap().get(path).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn ready(&self) {
        crate::support::eventually("readiness", async || (self.admin("readyz").await.0 == 200).then_some(()))
            .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stored(folder: &Path, name: &str, keys: &str) -> String {
    let store = folder.join(name).join("data");
    format!("[store]\ndirectory = {store:?}\n{keys}[transfer]\nlisten = \"127.0.0.1:0\"\n")
}

/// Runs a command to its end, and says what it printed.
pub(crate) fn shoal(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_shoal")).args(arguments).output().unwrap();
    assert!(output.status.success(), "shoal {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The binary under a name of its own, so that every start of a test is one of the same build.
fn binary(folder: &Path) -> PathBuf {
    let (built, linked) = (Path::new(env!("CARGO_BIN_EXE_shoal")), folder.join("shoal"));
    if !linked.exists() && std::fs::hard_link(built, &linked).is_err() {
        std::fs::copy(built, &linked).unwrap();
    }
    linked
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// A port that was free a moment ago: for the addresses that others must know beforehand.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
