//! Pushes and pulls that are cut short, by a network or by a signal: the next attempt goes on where they were.

use std::process::Stdio;

use shoal::image::Image;

use super::rig::{Pipe, Stock, User};
use crate::process::Processes;
use crate::support::{MIB, eventually};

/// A process that is killed as soon as that many bytes went.
async fn kill_at(pipe: &Pipe, bytes: u64, user: &User, arguments: &[&str]) {
    let mut child = user.command(arguments).stdout(Stdio::null()).spawn().unwrap();
    eventually("half of the image", async || (pipe.passed() > bytes).then_some(())).await;
    assert!(child.try_wait().unwrap().is_none(), "it has ended before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_killed_goes_on() {
    let cluster = Processes::start().await;
    let image = Image::generate(64 * MIB, 1, 81);
    cluster.origin.client().push("team/app", "1", &image, |_| ()).await.unwrap();
    let pipe = Pipe::to(cluster.origin.registry(), u64::MAX, 40 * MIB).await;
    let (user, from) = (User::logged_in(&[]), format!("{}/team/app:1", pipe.address));
    let pull = ["pull", &from, "oci-archive:image.tar"];
    kill_at(&pipe, 40 * MIB, &user, &pull).await;
    assert!(!user.path("image.tar").exists());
    pipe.open();
    let before = pipe.passed();
    let pulled = user.does(&pull);
    assert_eq!(pulled["digest"], shoal_core::Digest::sha256(&image.manifest).to_string());
    assert!(pipe.passed() - before < 40 * MIB, "{} bytes came again", pipe.passed() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_killed_goes_on() {
    let cluster = Processes::start().await;
    let image = Image::generate(128 * MIB, 1, 82);
    cluster.origin.client().push("team/app", "1", &image, |_| ()).await.unwrap();
    let user = User::logged_in(&[]);
    user.does(&["pull", &format!("{}/team/app:1", cluster.origin.registry()), "oci:folder"]);
    // Another origin, which has nothing of it.
    let other = cluster.another_origin("other");
    let pipe = Pipe::to(other.registry(), u64::MAX, 80 * MIB).await;
    let to = format!("{}/pushed/app:1", pipe.address);
    let push = ["push", "oci:folder", &to];
    kill_at(&pipe, 80 * MIB, &user, &push).await;
    pipe.open();
    let before = pipe.passed();
    let pushed = user.does(&push);
    assert_eq!(pushed["digest"], shoal_core::Digest::sha256(&image.manifest).to_string());
    assert!(pipe.passed() - before < 70 * MIB, "{} bytes went again", pipe.passed() - before);
    let layer = image.layers[0];
    other.client().pull_blob("pushed/app", &layer.digest, |_| ()).await.unwrap();
    let left = std::fs::read_dir(user.path(".local/state/shoal/uploads")).unwrap().count();
    assert_eq!(left, 0, "what has ended is kept no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_again_and_again_are_no_failure() {
    let cluster = Processes::start().await;
    let image = Image::generate(48 * MIB, 1, 83);
    cluster.origin.client().push("team/app", "1", &image, |_| ()).await.unwrap();
    let other = cluster.another_origin("other");
    // Each end of the copy is cut every 20 MiB.
    let from = Pipe::to(cluster.origin.registry(), 20 * MIB, u64::MAX).await;
    let to = Pipe::to(other.registry(), 20 * MIB, u64::MAX).await;
    let user = User::logged_in(&[]);
    let copied = user.does(&[
        "copy",
        &format!("{}/team/app:1", from.address),
        &format!("{}/copied/app:1", to.address),
    ]);
    assert_eq!(copied["digest"], shoal_core::Digest::sha256(&image.manifest).to_string());
    assert!(from.passed() < 100 * MIB && to.passed() < 100 * MIB, "{} and {}", from.passed(), to.passed());
    other.client().pull_blob("copied/app", &image.layers[0].digest, |_| ()).await.unwrap();
}

/// What docker-registry before 3 has of a part that was cut it does not tell, so there the blob begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_say_how_far_it_is_gets_all_again() {
    let Some(stock) = Stock::start().await else { return };
    let cluster = Processes::start().await;
    let image = Image::generate(96 * MIB, 1, 84);
    cluster.origin.client().push("team/app", "1", &image, |_| ()).await.unwrap();
    let to = Pipe::to(stock.address, 50 * MIB, u64::MAX).await.cutting(1);
    let user = User::logged_in(&[to.address]);
    let from = format!("{}/team/app:1", cluster.origin.registry());
    let copied = user.does(&["copy", &from, &format!("{}/copied/app:1", to.address)]);
    assert_eq!(copied["digest"], shoal_core::Digest::sha256(&image.manifest).to_string());
    let back = format!("{}/back/app:1", cluster.origin.registry());
    let back = user.does(&["copy", &format!("{}/copied/app:1", to.address), &back]);
    assert_eq!(back["digest"], copied["digest"]);
}
