//! The answers of an origin's admin port.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use shoal_control::prefetch::Selection;
use shoal_core::Zone;
use shoal_origin::{Preheat, PreheatError, Wish};

use super::{Ordered, PATH, Progress, parse_image};

/// The one path.
pub(crate) fn router(preheat: Preheat) -> Router {
    Router::new().route(PATH, post(order).get(list)).with_state(preheat)
}

async fn order(State(preheat): State<Preheat>, Json(ordered): Json<Ordered>) -> Response {
    let bad = |error: &dyn std::fmt::Display| refuse(StatusCode::BAD_REQUEST, error);
    let (repository, reference) = match parse_image(&ordered.image) {
        Ok(image) => image,
        Err(error) => return bad(&error),
    };
    let platform = match ordered.platform.as_deref().map(str::parse).transpose() {
        Ok(platform) => platform,
        Err(error) => return bad(&error),
    };
    let selection = Selection { zone: Zone(ordered.zone), share: ordered.share };
    let wish = Wish { selection, platform, ttl: ordered.ttl };
    match preheat.order(&repository, &reference, &wish).await {
        Ok(state) => Json(Progress::from(state)).into_response(),
        Err(error) => refuse(status_of(&error), &error),
    }
}

async fn list(State(preheat): State<Preheat>) -> Response {
    match preheat.states().await {
        Ok(states) => Json(states.into_iter().map(Progress::from).collect::<Vec<_>>()).into_response(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

fn status_of(error: &PreheatError) -> StatusCode {
    match error {
        PreheatError::NotFound(_) => StatusCode::NOT_FOUND,
        PreheatError::Name(_) => StatusCode::BAD_REQUEST,
        PreheatError::TooManyBlobs(_) | PreheatError::Image(_) => StatusCode::UNPROCESSABLE_ENTITY,
        PreheatError::Here(_) | PreheatError::Tracker(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn refuse(status: StatusCode, error: &dyn std::fmt::Display) -> Response {
    (status, format!("{error}\n")).into_response()
}
