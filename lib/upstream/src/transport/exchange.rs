//! A request and its answer, behind redirects; and the question to a token server.

use std::time::Instant;

use http::header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{RequestBuilder, Response, Url};

use super::{Call, Transport, broken, sensitive, slow, what};
use crate::credentials::{Credentials, Secret};
use crate::error::UpstreamError;
use crate::redirect;
use crate::token::{self, TokenAnswer, TokenRequest, UntrustedRealm};

impl Transport {
    /// Sends a request and follows where the answer leads, if only bytes are asked for.
    pub(super) async fn exchange(
        &self,
        call: &Call,
        shown: Option<&Secret>,
    ) -> Result<Response, UpstreamError> {
        let mut request = self.clients.registry.request(call.method.clone(), call.url.clone());
        request = request.headers(call.headers.clone()).body(call.body.clone());
        if let Some(secret) = shown {
            request = request.header(AUTHORIZATION, sensitive(secret)?);
        }
        let mut response = self.answer(&call.what(), call, request).await?;
        let reach = self.clients.seen_at(response.remote_addr());
        if !matches!(call.method, Method::GET | Method::HEAD) {
            return Ok(response);
        }
        let mut from = call.url.clone();
        for hop in 0.. {
            let Some(location) = leads_to(&response) else { return Ok(response) };
            let target = redirect::follow(&from, location, hop, reach)
                .map_err(|reason| UpstreamError::not_followed(&call.what(), &reason))?;
            response = self.hop(call, &target, shown).await?;
            from = target;
        }
        unreachable!("the number of hops is bounded")
    }

    /// What the registry wanted to say goes along only where the registry is.
    async fn hop(
        &self,
        call: &Call,
        target: &Url,
        shown: Option<&Secret>,
    ) -> Result<Response, UpstreamError> {
        let home = target.origin() == self.base.origin();
        let client = if home { &self.clients.registry } else { &self.clients.elsewhere };
        let mut headers = HeaderMap::new();
        for name in [ACCEPT, RANGE] {
            headers.extend(call.headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
        }
        let mut request = client.request(call.method.clone(), target.clone()).headers(headers);
        if let (true, Some(secret)) = (home, shown) {
            request = request.header(AUTHORIZATION, sensitive(secret)?);
        }
        self.answer(&what(&call.method, target), call, request).await
    }

    async fn answer(
        &self,
        what: &str,
        call: &Call,
        request: RequestBuilder,
    ) -> Result<Response, UpstreamError> {
        let limit = call.patience.unwrap_or(self.response_timeout);
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(what, error)),
            Err(_) => Err(slow(what, limit)),
        }
    }

    /// Asks a token server, and keeps its token.
    pub(super) async fn fetch_token(&self, request: &TokenRequest) -> Result<Secret, UpstreamError> {
        let reach = self.clients.nearest();
        let asked = format!("token for {}", self.base.origin().ascii_serialization());
        let realm = token::realm(&self.base, &request.realm, reach)
            .map_err(|reason| UpstreamError::not_followed(&asked, &reason))?;
        let what = format!("{asked} from {}", realm.origin().ascii_serialization());
        let builder = self.token_request(&what, &realm, request)?;
        let response = match tokio::time::timeout(self.response_timeout, builder.send()).await {
            Ok(outcome) => outcome.map_err(|error| broken(&what, error))?,
            Err(_) => return Err(slow(&what, self.response_timeout)),
        };
        let response = self.judge(&what, response, &[StatusCode::OK]).await?;
        let body = self.read(&what, response, MAX_TOKEN).await?;
        let malformed = || UpstreamError::malformed(&what, "the answer holds no token");
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| malformed())?;
        self.authorizer.keep(&request.scope, answer, Instant::now()).ok_or_else(malformed)
    }

    fn token_request(
        &self,
        what: &str,
        realm: &Url,
        request: &TokenRequest,
    ) -> Result<RequestBuilder, UpstreamError> {
        let credentials = self.authorizer.credentials();
        if *credentials != Credentials::Anonymous {
            self.authorizer.trusts(&self.base, realm).map_err(|UntrustedRealm(host)| UpstreamError::Unsafe {
                what: what.to_owned(),
                reason: format!(
                    "for it would be shown the password: if {host} does give this registry's tokens, name it as one of its token hosts (--token-host)"
                ),
            })?;
        }
        let client = if realm.origin() == self.base.origin() {
            &self.clients.registry
        } else {
            &self.clients.elsewhere
        };
        let mut pairs = Vec::new();
        pairs.extend(request.service.as_deref().map(|service| ("service", service)));
        if let Credentials::Identity(identity) = credentials {
            pairs.extend([
                ("scope", request.asked.as_str()),
                ("grant_type", "refresh_token"),
                ("client_id", "shoal"),
            ]);
            pairs.push(("refresh_token", identity.expose()));
            return Ok(client
                .post(realm.clone())
                .header(http::header::CONTENT_TYPE, FORM)
                .body(form(&pairs)));
        }
        // The specification has a parameter for each.
        pairs
            .extend(request.asked.split(' ').filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
        let mut builder = client.get(realm.clone()).query(&pairs);
        if let Some(secret) = credentials.basic() {
            builder = builder.header(AUTHORIZATION, sensitive(&secret)?);
        }
        Ok(builder)
    }
}

fn leads_to(response: &Response) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    redirects.then(|| response.headers().get(LOCATION)?.to_str().ok()).flatten()
}

/// `application/x-www-form-urlencoded` is what a query is.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form/").expect("it is a URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

const FORM: &str = "application/x-www-form-urlencoded";
/// Tokens have some KiB.
const MAX_TOKEN: usize = 256 << 10;
