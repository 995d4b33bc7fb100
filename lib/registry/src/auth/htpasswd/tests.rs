use std::io::Write;

use tempfile::NamedTempFile;

use super::*;

fn basic(name: &str, password: &str) -> Basic {
    Basic { name: name.to_owned(), password: password.as_bytes().to_vec() }
}

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn config(file: &NamedTempFile) -> HtpasswdConfig {
    HtpasswdConfig {
        file: file.path().to_owned(),
        realm: "test".into(),
        token_url: None,
        remember: Duration::from_secs(60),
        max_checks: 1,
        max_waiting: 0,
    }
}

async fn is_good(htpasswd: &Htpasswd, name: &str, password: &str) -> bool {
    htpasswd.check(basic(name, password)).await.is_ok()
}

#[tokio::test]
async fn only_the_right_password_of_the_right_name_is_taken() {
    let file = file(&format!("# users\n\nalice:{}\nbob:{}\n", hash("one"), hash("two")));
    let htpasswd = Htpasswd::open(&config(&file)).await.unwrap();
    for (name, password, expected) in [
        ("alice", "one", true),
        ("alice", "one", true),
        ("alice", "two", false),
        ("alice", "", false),
        ("bob", "two", true),
        ("bob", "one", false),
        ("carol", "one", false),
        ("Alice", "one", false),
        ("# users", "one", false),
    ] {
        assert_eq!(is_good(&htpasswd, name, password).await, expected, "{name} {password}");
    }
}

#[tokio::test]
async fn passwords_that_differ_behind_what_bcrypt_reads_are_refused() {
    let long = "x".repeat(72);
    let file = file(&format!("alice:{}\n", hash(&long)));
    let htpasswd = Htpasswd::open(&config(&file)).await.unwrap();
    assert!(!is_good(&htpasswd, "alice", &long).await);
    assert!(!is_good(&htpasswd, "alice", &(long + "y")).await);
}

#[tokio::test]
async fn what_was_right_is_not_checked_again_and_what_was_wrong_is() {
    let file = file(&format!("alice:{}\n", hash("one")));
    let htpasswd = Htpasswd::open(&config(&file)).await.unwrap();
    assert!(is_good(&htpasswd, "alice", "one").await);
    assert!(!is_good(&htpasswd, "alice", "two").await);
    let places = Arc::clone(&htpasswd.places).acquire_many_owned(1).await.unwrap();
    assert!(is_good(&htpasswd, "alice", "one").await);
    assert_eq!(htpasswd.check(basic("alice", "two")).await, Err(Refusal::Busy));
    assert_eq!(htpasswd.check(basic("nobody", "two")).await, Err(Refusal::Busy));
    drop(places);
    assert!(!is_good(&htpasswd, "alice", "two").await);
}

#[tokio::test(start_paused = true)]
async fn a_right_password_is_remembered_for_its_time_only() {
    let file = file(&format!("alice:{}\n", hash("one")));
    let htpasswd = Htpasswd::open(&config(&file)).await.unwrap();
    assert!(is_good(&htpasswd, "alice", "one").await);
    let _places = Arc::clone(&htpasswd.places).acquire_many_owned(1).await.unwrap();
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(is_good(&htpasswd, "alice", "one").await);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(htpasswd.check(basic("alice", "one")).await, Err(Refusal::Busy));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_file_counts_also_for_what_is_remembered() {
    let file = file(&format!("alice:{}\nbob:{}\n", hash("one"), hash("two")));
    let htpasswd = Htpasswd::open(&config(&file)).await.unwrap();
    assert!(is_good(&htpasswd, "alice", "one").await);
    assert!(is_good(&htpasswd, "bob", "two").await);
    std::fs::write(file.path(), format!("alice:{}\ncarol:{}\n#", hash("new"), hash("three"))).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!is_good(&htpasswd, "alice", "one").await);
    assert!(!is_good(&htpasswd, "bob", "two").await);
    assert!(is_good(&htpasswd, "alice", "new").await);
    assert!(is_good(&htpasswd, "carol", "three").await);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_taken_any_more_leaves_the_one_before() {
    let file = file(&format!("alice:{}\n", hash("one")));
    let htpasswd = Htpasswd::open(&config(&file)).await.unwrap();
    std::fs::write(file.path(), "alice:plain text").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(is_good(&htpasswd, "alice", "one").await);
    assert!(!is_good(&htpasswd, "alice", "plain text").await);
}

#[tokio::test]
async fn a_bad_file_is_said_by_line_and_never_quoted() {
    let good = hash("one");
    for (text, reason) in [
        ("alice".to_owned(), "no colon"),
        (":x".to_owned(), "no name"),
        ("alice:$apr1$secret".to_owned(), "not bcrypt"),
        ("alice:secret".to_owned(), "not bcrypt"),
        (format!("alice:{}", good.replace("$2b$", "$2x$")), "not bcrypt"),
        ("alice:$2b$10$secret".to_owned(), "not a whole"),
        (format!("alice:{}", good.replace("$04$", "$15$")), "above 14"),
        (format!("alice:{good}\nalice:{good}"), "there before"),
    ] {
        let error = Htpasswd::open(&config(&file(&text))).await.err().unwrap().to_string();
        assert!(error.contains(reason) && error.contains("line "), "{text}: {error}");
        assert!(!error.contains("secret") && !error.contains(&good), "{error}");
    }
    let missing = HtpasswdConfig { file: "/nowhere/htpasswd".into(), ..config(&file("")) };
    assert!(matches!(Htpasswd::open(&missing).await, Err(GuardError::Htpasswd(HtpasswdError::Read { .. }))));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_as_much_work_as_the_dearest_that_does() {
    let file = file(&format!("alice:{}\nbob:{}\n", hash("one"), bcrypt::hash("two", 6).unwrap()));
    let source = Source::open(file.path()).await.unwrap();
    let users = source.users().await;
    let decoy: bcrypt::HashParts = users.decoy().parse().unwrap();
    assert_eq!(decoy.get_cost(), 6);
    // It is a hash that bcrypt works on, not one that it refuses at a glance.
    assert!(bcrypt::non_truncating_verify("x", users.decoy()).is_ok());
}
