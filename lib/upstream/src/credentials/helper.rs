//! Credential helpers: `docker-credential-<name> get` (docker/docker-credential-helpers). Run as child processes, never by a
//! shell; the registry's name goes in by standard input. How long one runs and what it says are bounded. Off the async threads.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Credentials, CredentialsError};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the helper has for a registry; `None` where it knows of none.
pub(super) async fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, CredentialsError> {
    let error = |reason: String| CredentialsError::Helper {
        helper: excerpt(helper),
        host: server.to_owned(),
        reason,
    };
    if !is_name(helper) {
        return Err(error("that is no helper's name: letters, digits, -, _ and . are".into()));
    }
    let (program, input) = (format!("docker-credential-{helper}"), server.to_owned());
    let run = tokio::task::spawn_blocking(move || run(Command::new(program).arg("get"), &input, PATIENCE));
    let (success, output) = match run.await {
        Ok(outcome) => outcome.map_err(error)?,
        Err(failed) => return Err(error(failed.to_string())),
    };
    if !success {
        return match String::from_utf8_lossy(&output).contains("credentials not found") {
            true => Ok(None),
            false => Err(error("it failed: run it by hand to see why".into())),
        };
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| error("its answer is not what such helpers say".into()))?;
    Ok(Some(Credentials::of(answer.username, answer.secret)))
}

/// Whether it succeeded, and what it said. However it ends, the child does not live on.
fn run(command: &mut Command, input: &str, patience: Duration) -> Result<(bool, Vec<u8>), String> {
    let deadline = Instant::now() + patience;
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|source| format!("cannot be started: {source}. Is it installed and on PATH?"))?;
    let outcome = talk(&mut child, input, deadline);
    if outcome.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

fn talk(child: &mut Child, input: &str, deadline: Instant) -> Result<(bool, Vec<u8>), String> {
    let late = || "no answer in time".to_owned();
    if let Some(mut stdin) = child.stdin.take() {
        // A host's name fits a pipe; one that does not read its input may have an answer all the same.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // Ends with the child, or with what inherited its output.
        std::thread::spawn(move || sender.send(read_capped(stdout)));
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let output = receiver.recv_timeout(left).map_err(|_| late())?.map_err(|error| error.to_string())?;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok((status.success(), output));
        }
        std::thread::sleep(POLL);
    }
    Err(late())
}

fn read_capped(stdout: impl Read) -> std::io::Result<Vec<u8>> {
    let mut output = Vec::new();
    stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output)?;
    match output.len() as u64 > MAX_OUTPUT {
        true => Err(std::io::Error::other(format!("it says more than {MAX_OUTPUT} bytes"))),
        false => Ok(output),
    }
}

fn is_name(helper: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&helper.len()) && helper.bytes().all(inner)
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Some ask a cloud, some a person.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks at whether a child that has said all has ended.
const POLL: Duration = Duration::from_millis(5);
/// Tokens have some KiB.
const MAX_OUTPUT: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_helper_is_named_by_a_name_and_no_path() {
        for helper in ["", "../evil", "a b", "a;b", "/bin/sh", "$(x)"] {
            let error = ask(helper, "r.example").await.unwrap_err().to_string();
            assert!(error.contains("no helper's name"), "{error}");
        }
        let error = ask("that-nobody-has", "r.example").await.unwrap_err().to_string();
        assert!(error.contains("installed"), "{error}");
    }

    #[test]
    fn a_helper_gets_the_registry_by_standard_input() {
        let (success, output) = run(&mut Command::new("cat"), "r.example", PATIENCE).unwrap();
        assert_eq!((success, output.as_slice()), (true, b"r.example".as_slice()));
        assert!(!run(&mut Command::new("false"), "", PATIENCE).unwrap().0);
    }

    #[test]
    fn a_helper_that_hangs_or_says_too_much_is_ended() {
        let hung = run(Command::new("sleep").arg("600"), "", Duration::from_millis(50)).unwrap_err();
        assert!(hung.contains("in time"), "{hung}");
        let endless = run(&mut Command::new("yes"), "", PATIENCE).unwrap_err();
        assert!(endless.contains("more than"), "{endless}");
    }
}
