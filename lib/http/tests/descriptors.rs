//! The process runs out of file descriptors. Alone in its binary, since it takes them from every test beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::fs::File;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal_http::Limits;
use support::*;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

#[tokio::test]
async fn the_server_outlives_a_lack_of_file_descriptors() {
    let (_running, address) = serve(router(&Gate::new()), None, Limits::default()).await;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // One is left for the client's end, and none for the server's.
    taken.pop();
    let mut client = connect(address).await;
    send(&mut client, GET).await;
    let early = timeout(Duration::from_millis(100), client.read_u8()).await;
    assert!(early.is_err(), "there was a descriptor left: {early:?}");

    taken.clear();
    assert!(answer(&mut client).await.ends_with("hello"));
}
