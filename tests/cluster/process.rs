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
    peers: Option<SocketAddr>,
    admin: SocketAddr,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// A cluster of processes.
pub(crate) struct Processes {
    folder: TempDir,
    pub(crate) tracker: Process,
    tracker_url: String,
    tracker_config: String,
    pub(crate) origin: Process,
    origin_url: String,
    enrolment_url: String,
}

/// Keys of `[identity]` for a node that looks at its files all the time.
const SOON: &str = "reload_interval = \"100ms\"\n";

/// Begins the table that each configuration ends with.
const IDENTITY: &str = "[identity]\n";

/// How long a role may take to come up.
const START: Duration = Duration::from_secs(30);

impl Processes {
    /// Starts a tracker and an origin.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, with more tables in the origin's configuration.
    pub(crate) async fn start_with(origin_tables: &str) -> Self {
        Self::start_all("", "", origin_tables, "", |_| ()).await
    }

    /// The same, with more keys in the tracker's configuration.
    pub(crate) async fn with_tracker(tracker_keys: &str) -> Self {
        Self::start_all(tracker_keys, "", "", "", |_| ()).await
    }

    /// The same, with more keys in the tracker's configuration and more tables in the origin's.
    pub(crate) async fn with_both(tracker_keys: &str, origin_tables: &str) -> Self {
        Self::start_all(tracker_keys, "", origin_tables, "", |_| ()).await
    }

    /// The same with a tracker that enrols nodes, for certificates of that lifetime, and hears of changes soon. Before the
    /// roles start, `prepare` has the folder with the authority.
    pub(crate) async fn enrolling(lifetime: &str, prepare: impl FnOnce(&Path)) -> Self {
        let enrolment = format!("listen = \"127.0.0.1:{{}}\"\nlifetime = \"{lifetime}\"\n");
        Self::start_all("", &enrolment, "", SOON, prepare).await
    }

    async fn start_all(
        tracker_keys: &str,
        enrolment: &str,
        origin_tables: &str,
        identity_keys: &str,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        shoal_identity::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        shoal(&["ca", "init", "--directory", ca.to_str().unwrap()]);
        prepare(folder.path());
        let tracker_port = free_port();
        let (tracker_url, api_port) = (format!("https://127.0.0.1:{tracker_port}"), free_port());
        let origin_url = format!("https://127.0.0.1:{api_port}");
        let enrolment_port = free_port();
        let enrolment_url = format!("https://127.0.0.1:{enrolment_port}");

        let mut config = format!("listen = \"127.0.0.1:{tracker_port}\"\n{tracker_keys}");
        if !enrolment.is_empty() {
            let enrolment = enrolment.replace("{}", &enrolment_port.to_string());
            config += "announce_interval = \"300ms\"\nlease = \"5s\"\n";
            config += &format!("[enrolment]\nca = {ca:?}\n{enrolment}{IDENTITY}{identity_keys}");
        }
        let tracker_config = config;
        let tracker = Process::spawn(folder.path(), Role::Tracker, "tracker", &tracker_config);
        let config = format!(
            "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:{api_port}\"\ntracker = [\"{tracker_url}\"]\n{origin_tables}{}",
            stored(folder.path(), "origin", "")
        ) + IDENTITY
            + identity_keys;
        let origin = Process::spawn(folder.path(), Role::Origin, "origin", &config);
        let processes =
            Self { folder, tracker, tracker_url, tracker_config, origin, origin_url, enrolment_url };
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

    /// The same with its peer port there, and with more keys.
    pub(crate) async fn agent_at(&self, name: &str, listen: &str, keys: &str) -> Process {
        let (tracker, origin) = (&self.tracker_url, &self.origin_url);
        let servers = format!("tracker = [{tracker:?}]\norigins = [{origin:?}]\n{keys}");
        let store = stored(self.folder.path(), name, "min_free = 0\ncapacity = \"100%\"\n");
        // The peer port is what the last table is about.
        let store = store.replace("127.0.0.1:0", listen);
        let config = format!("listen = \"127.0.0.1:0\"\n{servers}\n{store}");
        let agent = Process::spawn(self.folder.path(), Role::Agent, name, &config);
        agent.ready().await;
        agent
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

    /// A token of `shoal ca token`, for an agent of that name.
    pub(crate) fn token(&self, name: &str) -> String {
        let ca = self.folder("ca");
        let ca = ca.to_str().unwrap();
        shoal(&["ca", "token", "--ca", ca, "--role", "agent", "--name", name]).trim().to_owned()
    }

    /// Starts an agent that has nothing but a token.
    pub(crate) async fn joining_agent(&self, name: &str, token: &str) -> Process {
        let (config, command) = self.joining(name, token);
        let agent = Process::run(command, self.folder.path(), Role::Agent, name, &config);
        agent.ready().await;
        agent
    }

    /// The same agent, run to its end, which comes when it cannot join: what it says then.
    pub(crate) fn refused_agent(&self, name: &str, token: &str) -> String {
        let (config, mut command) = self.joining(name, token);
        let file = self.folder(name).join("config.toml");
        std::fs::create_dir_all(self.folder(name)).unwrap();
        let directory = self.folder(name).join("identity");
        std::fs::write(&file, config.replace(IDENTITY, &format!("{IDENTITY}directory = {directory:?}\n")))
            .unwrap();
        let output = command.args(["agent", "--config", file.to_str().unwrap()]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn joining(&self, name: &str, token: &str) -> (String, Command) {
        let config = format!(
            "listen = \"127.0.0.1:0\"\ntracker = [\"{}\"]\norigins = [\"{}\"]\n{}{IDENTITY}{SOON}join = {{ token = \"{token}\", trackers = [\"{}\"] }}\n",
            self.tracker_url,
            self.origin_url,
            stored(self.folder.path(), name, "min_free = 0\ncapacity = \"100%\"\n"),
            self.enrolment_url
        );
        (config, Command::new(binary(self.folder.path())))
    }

    /// Starts an agent that asks that tracker and no origin.
    pub(crate) async fn agent_asking(&self, name: &str, tracker_url: &str) -> Process {
        let stored = stored(self.folder.path(), name, "min_free = 0\ncapacity = \"100%\"\n");
        let config =
            format!("listen = \"127.0.0.1:0\"\ntracker = [\"{tracker_url}\"]\norigins = []\n{stored}");
        let agent = Process::spawn(self.folder.path(), Role::Agent, name, &config);
        agent.ready().await;
        agent
    }

    pub(crate) fn origin_url(&self) -> &str {
        &self.origin_url
    }

    /// Starts an origin beside the first, or one of that name again. It answers, and may not have met the tracker yet.
    pub(crate) fn another_origin(&self, name: &str) -> Process {
        self.another_origin_with(name, "")
    }

    /// The same with more tables in its configuration.
    pub(crate) fn another_origin_with(&self, name: &str, tables: &str) -> Process {
        let config = format!(
            "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\ntracker = [\"{}\"]\n{tables}{}",
            self.tracker_url,
            stored(self.folder.path(), name, "")
        );
        Process::spawn(self.folder.path(), Role::Origin, name, &config)
    }

    /// Starts the tracker again where it was: it has forgotten everything.
    pub(crate) fn start_tracker(&mut self) {
        self.tracker.stop();
        self.tracker = Process::spawn(self.folder.path(), Role::Tracker, "tracker", &self.tracker_config);
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
    pub(crate) fn spawn(folder: &Path, role: Role, name: &str, config: &str) -> Self {
        Self::spawn_by(Command::new(binary(folder)), folder, role, name, config)
    }

    /// By a command to which only the arguments of the role are missing. A configuration may say where its admin port is.
    pub(crate) fn spawn_by(command: Command, folder: &Path, role: Role, name: &str, config: &str) -> Self {
        issue(folder, role, name);
        Self::run(command, folder, role, name, config)
    }

    /// One whose certificate, if it has any, is there already. Keys of `[identity]` may end the configuration.
    fn run(mut command: Command, folder: &Path, role: Role, name: &str, config: &str) -> Self {
        let home = folder.join(name);
        std::fs::create_dir_all(&home).unwrap();
        let (file, identity) = (home.join("config.toml"), home.join("identity"));
        let (tables, keys) = config.split_once(IDENTITY).unwrap_or((config, ""));
        let admin = if tables.starts_with("admin = ") { "" } else { "admin = \"127.0.0.1:0\"\n" };
        let head = format!("{admin}{tables}{IDENTITY}directory = {identity:?}\n{keys}");
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
        let complaints = Arc::default();
        let mut process = Self { child, registry: None, peers: None, admin, complaints };
        let lines = process.log(name);
        loop {
            let line = lines.recv_timeout(START).unwrap_or_else(|_| panic!("{name} did not come up"));
            let event: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            let address = |field: &str| event[field].as_str().map(|text| text.parse().unwrap());
            process.registry = process.registry.or_else(|| address("registry"));
            process.peers = process.peers.or_else(|| address("peers"));
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

    /// Where its admin port is.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where other nodes reach it.
    pub(crate) fn peers(&self) -> SocketAddr {
        self.peers.expect("this role has a peer port")
    }

    /// The warnings and errors that it has logged.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.stop();
    }

    /// The same where it lies; once more does nothing.
    pub(crate) fn stop(&mut self) {
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

    /// What the system calls it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has taken so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may have spaces (proc(5)): state is field 3, utime 14, stime 15, in ticks of 10 ms.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
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

    pub(crate) async fn ready(&self) {
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

/// Has the authority in the folder issue a certificate for a role of that name, unless it has one.
pub(crate) fn issue(folder: &Path, role: Role, name: &str) {
    let (ca, directory) = (folder.join("ca"), folder.join(name).join("identity"));
    if !directory.exists() {
        let (ca, directory) = (ca.to_str().unwrap(), directory.to_str().unwrap());
        let of = ["--role", role.as_str(), "--name", name, "--directory", directory];
        shoal(&[&["ca", "issue", "--ca", ca], &of[..]].concat());
    }
}

/// Keys of a role that keeps its store in the folder, with more keys of `[store]`.
pub(crate) fn stored(folder: &Path, name: &str, keys: &str) -> String {
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
pub(crate) fn binary(folder: &Path) -> PathBuf {
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
