//! `shoal bench` as a process. How fast anything is, is no matter for a test: only that everything is measured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Figures with their ceilings, in the order of the report.
const FIGURES: [(&str, Option<&str>); 14] = [
    ("sha256", None),
    ("sha512", None),
    ("blake3", None),
    ("file-write", None),
    ("file-read", None),
    ("store-write", Some("file-write")),
    ("store-read", Some("file-read")),
    ("store-pieces", Some("file-read")),
    ("tcp", None),
    ("tls", None),
    ("quic", None),
    ("transfer-tcp", Some("tls")),
    ("transfer-quic", Some("quic")),
    ("registry", Some("tcp")),
];

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    let directory = ["bench", "--directory", folder.to_str().unwrap()];
    Command::new(env!("CARGO_BIN_EXE_shoal")).args(directory).args(arguments).output().unwrap()
}

fn assert_positive(value: &Value, what: &str) {
    assert!(value.as_f64().is_some_and(|number| number > 0.0), "{what} is {value}");
}

#[test]
fn everything_is_measured_beside_its_ceiling() {
    let (folder, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("bench.json");
    let small = ["--runs", "1", "--size", "8MiB", "--blob-size", "2MiB", "--json", json.to_str().unwrap()];
    let output = bench(folder.path(), &small);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(report["figures"].as_object().unwrap().len(), FIGURES.len());
    let summary = text.lines().last().unwrap();
    assert!(summary.starts_with("bench: runs=1 size=8388608 verify=full "), "{summary}");
    for (name, ceiling) in FIGURES {
        let figure = &report["figures"][name];
        assert_positive(&figure["mib_per_second"], name);
        assert_positive(&figure["cpu_seconds_per_gib"], name);
        assert_positive(&figure["receiver"]["peak_memory"], name);
        assert_eq!(figure["samples"].as_array().unwrap().len(), 1, "{name}");
        assert_eq!(figure["ceiling"]["figure"].as_str(), ceiling, "{name}");
        if ceiling.is_some() {
            assert_positive(&figure["ceiling"]["share"], name);
        }
        assert!(text.contains(&format!("| {name} ")), "{name} is not in the table:\n{text}");
        assert!(summary.contains(&format!(" {}=", name.replace('-', "_"))), "{name}: {summary}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn what_was_named_is_measured_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        bench(folder.path(), &["transfer-quic", "--runs", "2", "--size", "1MiB", "--verify", "pieces"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let summary = text.lines().last().unwrap();
    let keys: Vec<&str> = summary.split(' ').skip(4).map(|pair| pair.split_once('=').unwrap().0).collect();
    assert_eq!(keys, ["quic", "quic_cpu", "transfer_quic", "transfer_quic_cpu", "transfer_quic_share"]);
    assert!(summary.contains("runs=2 size=1048576 verify=pieces"), "{summary}");
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap().path().join("gone");
    let output = bench(&folder, &["hash"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(folder.to_str().unwrap()), "{error}");
}

#[test]
fn an_interrupted_run_takes_its_folder_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(["bench", "quic", "--runs", "1000", "--size", "64MiB", "--directory"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();
    let pid = child.id().to_string();
    // From then on it listens for signals.
    until(|| started(child.id()) > 0);
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert_eq!(entries(), 0);
}

/// How many processes that one has started.
fn started(parent: u32) -> usize {
    let path = format!("/proc/{parent}/task/{parent}/children");
    std::fs::read_to_string(path).unwrap_or_default().split_whitespace().count()
}

/// Waits until something holds that has no event of its own.
fn until(mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < patience, "it never held");
        std::thread::sleep(Duration::from_millis(1));
    }
}
