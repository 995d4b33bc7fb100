//! Who is let in, who may do what, and how the others are told.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Extension;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::StatusCode;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use shoal_core::Digest;
use shoal_registry::auth::{
    self, Action, CertificateConfig, CertificateName, ClientCertificate, Guard, GuardError, HtpasswdConfig,
    Rule, TokenConfig,
};
use tempfile::NamedTempFile;

use crate::rig::{Reply, Rig};

const MANIFEST: &str = "/v2/a/manifests/latest";
const UPLOADS: &str = "/v2/a/blobs/uploads/";

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn rule(repositories: &str, identities: &[&str], allow: &[Action]) -> Rule {
    Rule {
        repositories: repositories.to_owned(),
        identities: identities.iter().map(|&name| name.to_owned()).collect(),
        allow: allow.to_vec(),
    }
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64.encode(text.as_bytes()))
}

impl Rig {
    /// As its client, without credentials if `authorization` is empty.
    async fn ask(&self, method: &str, path: &str, authorization: &str) -> Reply {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() { &[][..] } else { &headers[..] };
        self.send(method, path, headers, Body::empty()).await
    }
}

/// A registry with an image in `a`, behind passwords: alice has `one`, bob has `two`.
async fn with_passwords(rules: Vec<Rule>) -> Rig {
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    let file = file(&format!("alice:{}\nbob:{}\n", hash("one"), hash("two")));
    let htpasswd = HtpasswdConfig {
        file: file.path().to_owned(),
        realm: "the realm".into(),
        token_url: None,
        remember: Duration::from_secs(60),
        max_checks: 2,
        max_waiting: 16,
    };
    let open = Rig::new();
    open.push_image("a", "latest").await;
    open.guarded(&auth::Config { htpasswd: Some(htpasswd), rules, ..auth::Config::default() }).await
}

#[tokio::test]
async fn passwords_let_in_and_without_one_nothing_is_told() {
    let rig = with_passwords(vec![]).await;
    rig.driver.take_calls();
    for path in ["/v2/", MANIFEST, "/v2/a/tags/list", "/v2/other/tags/list", "/v2/NOT..A/NAME/tags/list"] {
        for wrong in ["", &basic("alice:two"), &basic("carol:one"), "Basic !", "Bearer x", "Digest x"] {
            let reply = rig.ask("GET", path, wrong).await;
            assert_eq!(reply.header("www-authenticate"), "Basic realm=\"the realm\", charset=\"UTF-8\"");
            assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
            reply.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        }
    }
    assert!(rig.driver.take_calls().is_empty());
    let alice = basic("alice:one");
    rig.ask("GET", "/v2/", &alice).await.expect(StatusCode::OK);
    rig.ask("GET", MANIFEST, &alice).await.expect(StatusCode::OK);
    rig.ask("HEAD", MANIFEST, &alice).await.expect(StatusCode::OK);
    rig.ask("POST", UPLOADS, &alice).await.expect(StatusCode::ACCEPTED);
    rig.ask("HEAD", MANIFEST, "").await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn rules_decide_who_pulls_and_pushes() {
    use Action::{Pull, Push};
    let rules = vec![rule("a", &["", "bob"], &[Pull]), rule("**", &["alice"], &[Pull, Push])];
    let rig = with_passwords(rules).await;
    let (alice, bob) = (basic("alice:one"), basic("bob:two"));
    rig.ask("GET", MANIFEST, "").await.expect(StatusCode::OK);
    rig.ask("POST", UPLOADS, "").await.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    rig.ask("GET", MANIFEST, &bob).await.expect(StatusCode::OK);
    let location = rig.ask("POST", UPLOADS, &alice).await.expect(StatusCode::ACCEPTED);
    let location = location.header("location").to_owned();
    // A session belongs to a push, whatever the method.
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        let reply = rig.ask(method, &location, &bob).await;
        assert!(reply.headers.get("www-authenticate").is_none());
        reply.expect_error(StatusCode::FORBIDDEN, "DENIED");
    }
    rig.ask("GET", "/v2/b/tags/list", &bob).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
    rig.ask("DELETE", MANIFEST, &alice).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
    rig.ask("DELETE", &location, &alice).await.expect(StatusCode::NO_CONTENT);
    // Wrong credentials are wrong, also where none would do.
    rig.ask("GET", MANIFEST, &basic("bob:one")).await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_upload_goes_on_only_with_the_credentials_that_started_it() {
    use Action::{Pull, Push};
    let rig = with_passwords(vec![rule("**", &["", "*"], &[Pull, Push])]).await;
    let (alice, bob) = (basic("alice:one"), basic("bob:two"));
    for (owner, others) in [(alice.as_str(), ["", &bob]), (&bob, ["", &alice]), ("", [&alice, &bob])] {
        let started = rig.ask("POST", UPLOADS, owner).await.expect(StatusCode::ACCEPTED);
        let location = started.header("location").to_owned();
        for other in others {
            for method in ["GET", "HEAD", "PATCH", "PUT", "DELETE"] {
                let path = format!("{location}?digest={}", Digest::sha256(b""));
                let reply = rig.ask(method, &path, other).await.expect(StatusCode::NOT_FOUND);
                assert!(
                    method == "HEAD" || reply.body.windows(19).any(|part| part == b"BLOB_UPLOAD_UNKNOWN")
                );
            }
        }
        rig.ask("GET", &location, owner).await.expect(StatusCode::NO_CONTENT);
        // A pass is the same client.
        let pass = pass(&rig, owner).await;
        rig.ask("PATCH", &location, &pass).await.expect(StatusCode::ACCEPTED);
        rig.ask("DELETE", &location, owner).await.expect(StatusCode::NO_CONTENT);
    }
}

/// What a client without and one with a password gets at the address of the challenge.
async fn pass(rig: &Rig, authorization: &str) -> String {
    let given = rig.ask("GET", "/v2/_token?service=x&scope=repository:a:pull", authorization).await;
    let given: Value = serde_json::from_slice(&given.expect(StatusCode::OK).body).unwrap();
    assert_eq!((&given["expires_in"], &given["access_token"]), (&json!(60), &given["token"]));
    format!("Bearer {}", given["token"].as_str().unwrap())
}

#[tokio::test]
async fn where_nobody_may_pull_too_everybody_is_sent_for_a_pass_and_may_what_the_rules_say() {
    use Action::{Pull, Push};
    let rules = vec![rule("a", &["", "bob"], &[Pull]), rule("**", &["alice"], &[Pull, Push])];
    let rig = with_passwords(rules).await;
    let host = [("host", "registry.example.com:5000")];
    let base = rig.send("GET", "/v2/", &host, Body::empty()).await;
    let sent = "Bearer realm=\"http://registry.example.com:5000/v2/_token\",service=\"the realm\"";
    assert_eq!(base.header("www-authenticate"), sent);
    base.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    let push = rig.send("POST", UPLOADS, &host, Body::empty()).await;
    assert_eq!(push.header("www-authenticate"), format!("{sent},scope=\"repository:a:pull,push\""));

    let (guest, alice) = (pass(&rig, "").await, pass(&rig, &basic("alice:one")).await);
    for who in [&guest, &alice] {
        rig.ask("GET", "/v2/", who).await.expect(StatusCode::OK);
        rig.ask("GET", MANIFEST, who).await.expect(StatusCode::OK);
        // A pass is no way to another one.
        rig.ask("GET", "/v2/_token", who).await.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    }
    let refused = rig.send("POST", UPLOADS, &[host[0], ("authorization", &guest)], Body::empty()).await;
    assert!(refused.header("www-authenticate").ends_with(",error=\"insufficient_scope\""));
    refused.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    rig.ask("POST", UPLOADS, &alice).await.expect(StatusCode::ACCEPTED);
    rig.ask("DELETE", MANIFEST, &alice).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
    rig.ask("GET", "/v2/_token", &basic("alice:two"))
        .await
        .expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    rig.ask("POST", "/v2/_token", "").await.expect_error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    rig.ask("GET", "/v2/", "Bearer x.y").await.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
}

#[tokio::test]
async fn where_everybody_needs_a_password_no_passes_are_given() {
    let rig = with_passwords(vec![]).await;
    for who in ["", &basic("alice:one")] {
        rig.ask("GET", "/v2/_token", who).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_mount_without_pull_on_its_source_is_as_if_the_source_had_nothing() {
    use Action::{Pull, Push};
    let rules = vec![rule("a", &["alice"], &[Pull, Push]), rule("b", &["alice", "bob"], &[Pull, Push])];
    let rig = with_passwords(rules).await;
    let (there, absent) = (Digest::sha256(b"layer"), Digest::sha256(b"nowhere"));
    let mount = |digest: &Digest| format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    rig.driver.take_calls();
    for digest in [&there, &absent] {
        let reply = rig.ask("POST", &mount(digest), &basic("bob:two")).await.expect(StatusCode::ACCEPTED);
        assert!(reply.header("location").starts_with("/v2/b/blobs/uploads/"));
        assert!(rig.driver.take_calls().iter().all(|call| !call.contains("layer link")));
    }
    rig.ask("POST", &mount(&absent), &basic("alice:one")).await.expect(StatusCode::ACCEPTED);
    rig.ask("POST", &mount(&there), &basic("alice:one")).await.expect(StatusCode::CREATED);
}

/// Signs tokens.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn jwk(&self, id: &str) -> Value {
        let x = BASE64URL_NOPAD.encode(self.public());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x})
    }

    /// RFC 8410: the algorithm, then the key.
    fn pem(&self) -> String {
        let der = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], self.public()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
    }

    fn bearer(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let signature = BASE64URL_NOPAD.encode(self.0.sign(text.as_bytes()).as_ref());
        format!("Bearer {text}.{signature}")
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn header() -> Value {
    json!({"typ": "JWT", "alg": "EdDSA"})
}

/// Good claims for `a`, with some of them set otherwise; null takes one away.
#[allow(clippy::needless_pass_by_value, reason = "the calls read better")]
fn claims(actions: &[&str], other: Value) -> Value {
    let mut claims = json!({
        "iss": "auth.example.com", "aud": "registry.example.com", "sub": "alice",
        "iat": now(), "nbf": now() - 1, "exp": now() + 300,
        "access": [{"type": "repository", "name": "a", "actions": actions}],
    });
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

async fn with_tokens(keys: &str, rules: Vec<Rule>) -> Rig {
    let open = Rig::new();
    open.push_image("a", "latest").await;
    open.guarded(&token_config(&file(keys), rules)).await
}

fn token_config(keys: &NamedTempFile, rules: Vec<Rule>) -> auth::Config {
    let token = TokenConfig {
        realm: "https://auth.example.com/token".into(),
        service: "registry.example.com".into(),
        issuer: "auth.example.com".into(),
        keys: keys.path().to_owned(),
        leeway: Duration::from_secs(5),
    };
    auth::Config { token: Some(token), rules, ..auth::Config::default() }
}

const ASK: &str = "Bearer realm=\"https://auth.example.com/token\",service=\"registry.example.com\"";

#[tokio::test]
async fn a_client_without_a_token_is_told_where_to_get_one_and_for_what() {
    let rig = with_tokens(&Issuer::new(1).pem(), vec![]).await;
    let digest = Digest::sha256(b"x");
    let mount = format!("{UPLOADS}?mount={digest}&from=b");
    for (method, path, scope) in [
        ("GET", "/v2/", ""),
        ("GET", MANIFEST, "repository:a:pull"),
        ("GET", "/v2/a/blobs/x", "repository:a:pull"),
        ("GET", "/v2/team/app/tags/list", "repository:team/app:pull"),
        ("PUT", MANIFEST, "repository:a:pull,push"),
        ("POST", UPLOADS, "repository:a:pull,push"),
        ("POST", &mount, "repository:a:pull,push repository:b:pull"),
        ("PATCH", "/v2/a/blobs/uploads/7", "repository:a:pull,push"),
        ("DELETE", MANIFEST, "repository:a:delete"),
    ] {
        let scope = if scope.is_empty() { String::new() } else { format!(",scope=\"{scope}\"") };
        let reply = rig.ask(method, path, "").await;
        assert_eq!(reply.header("www-authenticate"), format!("{ASK}{scope}"), "{method} {path}");
        reply.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        let reply = rig.ask(method, path, "Bearer nonsense").await;
        assert_eq!(reply.header("www-authenticate"), format!("{ASK}{scope},error=\"invalid_token\""));
    }
}

#[tokio::test]
async fn a_token_allows_what_its_access_lists_and_nothing_else() {
    let issuer = Issuer::new(1);
    let rig = with_tokens(&issuer.pem(), vec![]).await;
    let pull = issuer.bearer(&header(), &claims(&["pull"], json!({})));
    let push = issuer.bearer(&header(), &claims(&["pull", "push"], json!({})));
    rig.ask("GET", "/v2/", &pull).await.expect(StatusCode::OK);
    rig.ask("GET", MANIFEST, &pull).await.expect(StatusCode::OK);
    let reply = rig.ask("POST", UPLOADS, &pull).await;
    let asked = format!("{ASK},scope=\"repository:a:pull,push\",error=\"insufficient_scope\"");
    assert_eq!(reply.header("www-authenticate"), asked);
    reply.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    rig.ask("POST", UPLOADS, &push).await.expect(StatusCode::ACCEPTED);
    rig.ask("DELETE", MANIFEST, &push).await.expect(StatusCode::UNAUTHORIZED);
    rig.ask("GET", "/v2/b/tags/list", &push).await.expect(StatusCode::UNAUTHORIZED);
    let other_kind = json!({"access": [{"type": "registry", "name": "a", "actions": ["*"]}]});
    let other_kind = issuer.bearer(&header(), &claims(&[], other_kind));
    rig.ask("GET", MANIFEST, &other_kind).await.expect(StatusCode::UNAUTHORIZED);
    // One may enter with a token for nothing, as docker does at a login; and with one that names nobody.
    let nothing = issuer.bearer(&header(), &claims(&[], json!({"access": null})));
    rig.ask("GET", "/v2/", &nothing).await.expect(StatusCode::OK);
    rig.ask("GET", MANIFEST, &nothing).await.expect(StatusCode::UNAUTHORIZED);
    let anonymous = issuer.bearer(&header(), &claims(&["pull"], json!({"sub": ""})));
    rig.ask("GET", MANIFEST, &anonymous).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn rules_take_away_from_tokens_and_never_add() {
    let issuer = Issuer::new(1);
    let rig = with_tokens(&issuer.pem(), vec![rule("**", &["alice"], &[Action::Pull])]).await;
    let token = |subject| issuer.bearer(&header(), &claims(&["pull", "push"], json!({"sub": subject})));
    rig.ask("GET", MANIFEST, &token("alice")).await.expect(StatusCode::OK);
    rig.ask("POST", UPLOADS, &token("alice")).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
    rig.ask("GET", MANIFEST, &token("bob")).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
    rig.ask("GET", "/v2/b/tags/list", &token("alice")).await.expect(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_that_is_not_good_in_every_way_is_refused() {
    let (issuer, stranger) = (Issuer::new(1), Issuer::new(2));
    let rig = with_tokens(&json!({"keys": [issuer.jwk("ours")]}).to_string(), vec![]).await;
    let good = claims(&["pull"], json!({}));
    let with = |other| issuer.bearer(&header(), &claims(&["pull"], other));
    rig.ask("GET", MANIFEST, &issuer.bearer(&header(), &good)).await.expect(StatusCode::OK);
    let named = json!({"alg": "EdDSA", "kid": "ours"});
    rig.ask("GET", MANIFEST, &issuer.bearer(&named, &good)).await.expect(StatusCode::OK);
    rig.ask("GET", MANIFEST, &with(json!({"aud": ["x", "registry.example.com"]})))
        .await
        .expect(StatusCode::OK);

    // CVE-2025-24976: a header that brings its own key, under the name of ours.
    let own_key = json!({"alg": "EdDSA", "kid": "ours", "jwk": stranger.jwk("ours")});
    let secret_is_public_key = |secret: &[u8]| {
        let text = unsigned(&json!({"alg": "HS256", "kid": "ours"}), &good);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let tag = ring::hmac::sign(&key, text.as_bytes());
        format!("Bearer {text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let signed = issuer.bearer(&header(), &good);
    let (text, signature) = signed.rsplit_once('.').unwrap();
    let other_claims = unsigned(&header(), &claims(&["pull", "push"], json!({})));
    for (what, bearer) in [
        ("no algorithm", format!("Bearer {}.", unsigned(&json!({"alg": "none"}), &good))),
        ("no algorithm, signed", issuer.bearer(&json!({"alg": "none"}), &good)),
        ("public key as secret", secret_is_public_key(issuer.public())),
        ("public PEM as secret", secret_is_public_key(issuer.pem().as_bytes())),
        ("another algorithm", issuer.bearer(&json!({"alg": "ES256"}), &good)),
        ("another signer", stranger.bearer(&header(), &good)),
        ("another signer, our name", stranger.bearer(&json!({"alg": "EdDSA", "kid": "ours"}), &good)),
        ("a key of its own", stranger.bearer(&own_key, &good)),
        ("an unknown name", issuer.bearer(&json!({"alg": "EdDSA", "kid": "other"}), &good)),
        ("critical extension", issuer.bearer(&json!({"alg": "EdDSA", "crit": ["x"], "x": 1}), &good)),
        ("other claims", format!("Bearer {other_claims}.{signature}")),
        ("no signature", text.to_owned()),
        ("empty signature", format!("{text}.")),
        ("expired", with(json!({"exp": now() - 10}))),
        ("never expires", with(json!({"exp": null}))),
        ("expiry is a text", with(json!({"exp": "never"}))),
        ("not yet", with(json!({"nbf": now() + 100}))),
        ("start is a text", with(json!({"nbf": "now"}))),
        ("another service", with(json!({"aud": "other.example.com"}))),
        ("no service", with(json!({"aud": null}))),
        ("another issuer", with(json!({"iss": "evil.example.com"}))),
        ("ours among issuers", with(json!({"iss": ["evil", "auth.example.com"]}))),
        ("no issuer", with(json!({"iss": null}))),
        ("access is a text", with(json!({"access": "everything"}))),
        ("not a token", "Bearer a.b.c".to_owned()),
        ("nothing", "Bearer ".to_owned()),
        ("too long", format!("Bearer {}", "x".repeat(20_000))),
        ("a password", basic("alice:one")),
    ] {
        let reply = rig.ask("GET", MANIFEST, &bearer).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{what}");
        let body = reply.expect_error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED").to_string();
        assert!(bearer.len() < 20 || !body.contains(&bearer[7..]), "{what}: {body}");
    }
}

#[tokio::test]
async fn tokens_by_rsa_keys_and_by_each_key_of_a_bundle_are_good() {
    let (first, second) = (Issuer::new(1), Issuer::new(2));
    let keys = [first.pem(), include_str!("access/rsa.pem").to_owned(), second.pem()].concat();
    let rig = with_tokens(&keys, vec![]).await;
    let rsa = format!("Bearer {}", include_str!("access/rsa.jwt"));
    rig.ask("GET", MANIFEST, &rsa).await.expect(StatusCode::OK);
    let (text, _) = rsa.rsplit_once('.').unwrap();
    rig.ask("GET", MANIFEST, &format!("{text}.AAAA")).await.expect(StatusCode::UNAUTHORIZED);
    for issuer in [first, second] {
        let bearer = issuer.bearer(&header(), &claims(&["pull"], json!({})));
        rig.ask("GET", MANIFEST, &bearer).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_meant_is_refused() {
    let secret = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string();
    let certain = Issuer::new(1).pem();
    for (keys, reason) in [
        ("", "has 0 keys"),
        ("no keys", "has 0 keys"),
        (secret.as_str(), "shared secret"),
        (&certain.replace("PUBLIC", "PRIVATE"), "neither PUBLIC KEY nor CERTIFICATE"),
        (&certain.repeat(17), "has 17 keys"),
    ] {
        let file = file(keys);
        let error = Guard::new(&token_config(&file, vec![])).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{keys}: {error}");
    }
    let file = file(&certain);
    let mut config = token_config(&file, vec![]);
    config.certificate = Some(CertificateConfig::default());
    assert!(matches!(Guard::new(&config).await, Err(GuardError::SeveralMethods)));
    config.certificate = None;
    config.token.as_mut().unwrap().realm = "a\"b".into();
    assert!(matches!(Guard::new(&config).await, Err(GuardError::Unprintable(_))));
    let config = auth::Config { rules: vec![rule("**", &[""], &[Action::Pull])], ..auth::Config::default() };
    assert!(matches!(Guard::new(&config).await, Err(GuardError::RulesWithoutMethod)));
}

fn certificate(names: &[&str], uris: &[&str]) -> ClientCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    for name in names {
        parameters.distinguished_name.push(rcgen::DnType::CommonName, *name);
    }
    for uri in uris {
        parameters.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
    }
    ClientCertificate(parameters.self_signed(&key).unwrap().der().to_vec())
}

#[tokio::test]
async fn a_certificate_is_its_one_name_and_without_one_a_client_is_nobody() {
    let open = Rig::new();
    open.push_image("a", "latest").await;
    let uri = "spiffe://cluster/alice";
    for (identity, pattern) in [(CertificateName::CommonName, "alice"), (CertificateName::Uri, uri)] {
        let config = auth::Config {
            certificate: Some(CertificateConfig { identity }),
            rules: vec![rule("a", &[pattern], &[Action::Pull]), rule("public", &[""], &[Action::Pull])],
            ..auth::Config::default()
        };
        let rig = open.guarded(&config).await;
        let with = |certificate| Rig {
            router: rig.router.clone().layer(Extension(certificate)),
            driver: rig.driver.clone(),
            events: rig.events.clone(),
        };
        let alice = with(certificate(&["alice"], &[uri]));
        alice.get(MANIFEST).await.expect(StatusCode::OK);
        alice.ask("POST", UPLOADS, "").await.expect_error(StatusCode::FORBIDDEN, "DENIED");
        let bob = with(certificate(&["bob"], &["spiffe://cluster/bob"]));
        bob.get(MANIFEST).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
        for nobody in [certificate(&[], &[]), certificate(&[""], &[]), ClientCertificate(vec![1, 2, 3])] {
            let reply = with(nobody).get("/v2/public/tags/list").await;
            reply.expect_error(StatusCode::FORBIDDEN, "DENIED");
        }
        // Nothing in HTTP asks for a certificate: no challenge, and no 401 without one.
        let reply = rig.get(MANIFEST).await;
        assert!(reply.headers.get("www-authenticate").is_none());
        reply.expect_error(StatusCode::FORBIDDEN, "DENIED");
        rig.ask("GET", MANIFEST, &basic("alice:one")).await.expect(StatusCode::FORBIDDEN);
        rig.get("/v2/public/tags/list").await.expect(StatusCode::NOT_FOUND);
    }
    let two = auth::Config {
        certificate: Some(CertificateConfig { identity: CertificateName::Uri }),
        ..auth::Config::default()
    };
    let rig = open.guarded(&two).await;
    let router =
        rig.router.clone().layer(Extension(certificate(&["alice"], &[uri, "spiffe://cluster/root"])));
    let rig = Rig { router, driver: rig.driver.clone(), events: rig.events.clone() };
    rig.get(MANIFEST).await.expect_error(StatusCode::FORBIDDEN, "DENIED");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn credentials_are_in_no_log_and_no_answer() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone());
    // For all threads: a callsite that a test beside meets first would otherwise be silent here too.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    tracing::callsite::rebuild_interest_cache();

    let passwords = with_passwords(vec![rule("a", &["alice"], &[Action::Pull])]).await;
    let issuer = Issuer::new(1);
    let tokens = with_tokens(&issuer.pem(), vec![]).await;
    let token = issuer.bearer(&header(), &claims(&["pull"], json!({})));
    let expired = issuer.bearer(&header(), &claims(&["pull"], json!({"exp": 1})));
    let wrong = [basic("alice:hunter2"), basic("hunter2:hunter2"), "Basic hunter2".into(), "hunter2".into()];
    let asked = [basic("alice:one"), token.clone(), expired.clone()];
    let mut told = String::new();
    for authorization in wrong.iter().chain(&asked) {
        for rig in [&passwords, &tokens] {
            for (method, path) in [("GET", MANIFEST), ("POST", UPLOADS), ("GET", "/v2/")] {
                let reply = rig.ask(method, path, authorization).await;
                told.push_str(&String::from_utf8_lossy(&reply.body));
                told.push_str(&format!("{:?}", reply.headers));
            }
        }
    }
    told.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(told.contains("refused credentials"), "{told}");
    let encoded = wrong.iter().chain(&asked).map(|text| text.rsplit(' ').next().unwrap());
    let signatures = [&token, &expired].map(|token| token.rsplit('.').next().unwrap());
    for secret in encoded.chain(signatures).chain(["hunter2", "$2b$"]) {
        assert!(!told.contains(secret), "{secret} was told");
    }
}
