//! An origin that gives tokens: for a password, and for none.

use super::rig::{Index, User};
use crate::process::Processes;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_for_what_is_done_and_for_whom() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("htpasswd");
    std::fs::write(&users, format!("me:{}\n", bcrypt::hash("secret", 5).unwrap())).unwrap();
    let rule = |repositories: &str, identities: &str, allow: &str| {
        format!(
            "[[auth.rules]]\nrepositories = \"{repositories}\"\nidentities = [{identities}]\nallow = [{allow}]\n"
        )
    };
    let auth = format!("[auth.htpasswd]\nfile = {users:?}\nrealm = \"shoal\"\n")
        + &rule("open/**", "\"\", \"**\"", "\"pull\", \"push\"")
        + &rule("team/**", "\"me\"", "\"pull\", \"push\", \"delete\"");
    let cluster = Processes::start_with(&auth).await;
    let origin = cluster.origin.registry();
    let (me, stranger) = (User::logged_in(&[origin]), User::logged_in(&[]));
    let made = Processes::start().await;
    let index = Index::push(&made.origin.client(), "team/app", "1").await;

    let (open, team) = (format!("{origin}/open/app:1"), format!("{origin}/team/app:1"));
    let pushed = stranger.does(&["copy", &format!("{}/team/app:1", made.origin.registry()), &open]);
    assert_eq!(pushed["digest"], index.digest());
    // A token for both repositories, of which one is mounted from.
    assert_eq!(me.does(&["copy", &open, &team])["mounted"], index.blobs());
    assert_eq!(me.does(&["pull", &team, "oci:folder"])["digest"], index.digest());
    for refused in [
        &["copy", &open, &format!("{origin}/team/other:1")][..],
        &["pull", &team, "oci:folder"],
        &["delete", &team],
    ] {
        assert_eq!(stranger.fails(refused).0, 4, "{refused:?}");
    }
    me.does(&["delete", &team]);
    assert_eq!(me.fails(&["pull", &team, "oci:other"]).0, 3);
}
