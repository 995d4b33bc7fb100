//! Clients that read and change tags at origins by chance, and write down what they asked, when, and what they were told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, Response, StatusCode};
use shoal_core::Digest;

use super::linearizable::{Answer, Event, Fault, Operation, check};

pub(super) const REPOSITORY: &str = "team/moving";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// How long a client waits for an answer. Longer than a tag's decision takes; what hangs is lost.
const PATIENCE: Duration = Duration::from_secs(12);
/// After an answer that is none.
const PAUSE: Duration = Duration::from_millis(100);

/// What all clients share.
pub(super) struct Recorder {
    start: Instant,
    stop: AtomicBool,
    number: AtomicU64,
    tags: usize,
    /// Where the origins are now.
    pub(super) addresses: Mutex<Vec<SocketAddr>>,
    histories: Mutex<Vec<Vec<Event<Digest>>>>,
    pub(super) unconfirmed: AtomicU64,
}

impl Recorder {
    pub(super) fn new(tags: usize, addresses: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            number: AtomicU64::new(0),
            tags,
            addresses: Mutex::new(addresses),
            histories: Mutex::new(vec![Vec::new(); tags]),
            unconfirmed: AtomicU64::new(0),
        })
    }

    /// Asks and writes down until it is stopped.
    pub(super) fn client(self: &Arc<Self>, seed: u64) -> tokio::task::JoinHandle<()> {
        let recorder = self.clone();
        tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed);
            let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
            let mut seen = vec![None; recorder.tags];
            while !recorder.stop.load(Ordering::Relaxed) {
                let tag = random.random_range(0..recorder.tags);
                let address = *recorder.addresses.lock().unwrap().choose(&mut random).unwrap();
                let operation = recorder.choose(&mut random, seen[tag]);
                let event = recorder.ask(&http, address, tag, operation).await;
                match event {
                    Some(Event { answer: Answer::Names(named), .. }) => seen[tag] = named,
                    Some(Event { answer: Answer::Lost, .. }) | None => tokio::time::sleep(PAUSE).await,
                    Some(_) => {}
                }
            }
        })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn choose(&self, random: &mut SmallRng, seen: Option<Digest>) -> Operation<Digest> {
        let new = || Digest::sha256(&manifest(self.number.fetch_add(1, Ordering::Relaxed)));
        match random.random_range(0..10) {
            0..5 => Operation::Read,
            5..7 => Operation::Put(new()),
            7 => Operation::Delete,
            _ => Operation::Swap { from: seen, to: new() },
        }
    }

    /// Does it and writes down what is known of it. Nothing is written where certainly nothing happened.
    pub(super) async fn ask(
        &self,
        http: &reqwest::Client,
        origin: SocketAddr,
        tag: usize,
        operation: Operation<Digest>,
    ) -> Option<Event<Digest>> {
        let called = self.now();
        let answer = match self.send(http, origin, tag, &operation).await {
            Ok(response) => self.read(&operation, response).await,
            Err(error) if error.is_connect() => None,
            Err(_) => Some(Answer::Lost),
        };
        let answer = answer.filter(|answer| operation != Operation::Read || *answer != Answer::Lost)?;
        let event = Event { called, answered: self.now(), operation, answer };
        self.histories.lock().unwrap()[tag].push(event.clone());
        Some(event)
    }

    async fn send(
        &self,
        http: &reqwest::Client,
        origin: SocketAddr,
        tag: usize,
        operation: &Operation<Digest>,
    ) -> reqwest::Result<Response> {
        let url = format!("http://{origin}/v2/{REPOSITORY}/manifests/tag-{tag}");
        let put = |digest: &Digest| {
            let newest = self.number.load(Ordering::Relaxed);
            let numbers = (0..newest).rev();
            let body = numbers.map(manifest).find(|body| Digest::sha256(body) == *digest).unwrap();
            http.put(&url).header("content-type", INDEX_TYPE).body(body)
        };
        let request = match operation {
            Operation::Read => http.get(&url),
            Operation::Delete => http.request(Method::DELETE, &url),
            Operation::Put(digest) => put(digest),
            Operation::Swap { from: None, to } => put(to).header("if-none-match", "*"),
            Operation::Swap { from: Some(from), to } => put(to).header("if-match", format!("\"{from}\"")),
        };
        request.send().await
    }

    async fn read(&self, operation: &Operation<Digest>, response: Response) -> Option<Answer<Digest>> {
        let (status, headers) = (response.status(), response.headers().clone());
        let Ok(text) = response.text().await else { return Some(Answer::Lost) };
        Some(match (operation, status) {
            _ if headers.contains_key("warning") => {
                assert!(headers["warning"].to_str().unwrap().starts_with("110 "), "{headers:?}");
                self.unconfirmed.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            (Operation::Read, StatusCode::OK) => {
                let named = headers["docker-content-digest"].to_str().unwrap();
                Answer::Names(Some(Digest::parse(named).unwrap()))
            }
            // Nobody could be asked.
            (Operation::Read, StatusCode::NOT_FOUND) if text.contains("cannot be reached now") => {
                return None;
            }
            (Operation::Read, StatusCode::NOT_FOUND) => Answer::Names(None),
            (Operation::Put(_) | Operation::Swap { .. }, StatusCode::CREATED)
            | (Operation::Delete, StatusCode::ACCEPTED) => Answer::Done,
            (Operation::Delete, StatusCode::NOT_FOUND)
            | (Operation::Swap { .. }, StatusCode::PRECONDITION_FAILED) => Answer::Refused,
            (_, StatusCode::SERVICE_UNAVAILABLE) => {
                assert!(headers.contains_key("retry-after"), "{text}");
                Answer::Lost
            }
            (_, status) if status.is_server_error() => Answer::Lost,
            other => panic!("{other:?}: {text}"),
        })
    }

    /// How many answers there are, of those that say something.
    pub(super) fn answers(&self) -> usize {
        let histories = self.histories.lock().unwrap();
        histories.iter().flatten().filter(|event| event.answer != Answer::Lost).count()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    /// Holds the history of every tag against what a tag may do; gives the number of answers, and of those that were lost.
    pub(super) fn check(&self) -> (usize, usize) {
        let histories = self.histories.lock().unwrap();
        for (tag, history) in histories.iter().enumerate() {
            match check(None, history) {
                Ok(()) => {}
                Err(Fault::Impossible { left, names }) => {
                    let lines: Vec<_> = history
                        .iter()
                        .enumerate()
                        .map(|(place, event)| {
                            let mark = if left.contains(&place) { '>' } else { ' ' };
                            let Event { called, answered, operation, answer } = event;
                            let (called, answered) = (called / 1_000_000, answered / 1_000_000);
                            format!("{mark} {called:>6} ms to {answered:>6} ms  {operation:?}  {answer:?}")
                        })
                        .collect();
                    panic!(
                        "tag-{tag}, where it names {names:?}, cannot go on to what is marked:\n{}",
                        lines.join("\n")
                    );
                }
                Err(Fault::Undecided) => panic!("tag-{tag}: {} events were too many", history.len()),
            }
        }
        let all = histories.iter().flatten();
        let lost = all.clone().filter(|event| event.answer == Answer::Lost).count();
        (all.count() - lost, lost)
    }
}

/// A manifest that is like no other, and needs no blobs.
fn manifest(number: u64) -> Vec<u8> {
    let annotations = serde_json::json!({ "number": number.to_string() });
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [], "annotations": annotations
    });
    index.to_string().into_bytes()
}
