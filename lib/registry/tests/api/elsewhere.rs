//! What other nodes of the registry hand over: they say who sent it, and nobody else is believed.

use axum::body::Body;
use axum::extract::Request;
use http::StatusCode;
use http::header::LOCATION;
use shoal_registry::elsewhere::Vouched;
use shoal_registry::{Config, Registry};
use tower::ServiceExt;

use crate::rig::Rig;

#[tokio::test]
async fn an_upload_that_is_handed_over_is_its_clients_alone() {
    let rig = Rig::new();
    let registry = Registry::new(Config::default(), rig.driver.clone(), rig.events.clone());
    let nodes = registry.router_of_nodes();
    let ask = async |method: &str, path: &str, caller: Option<Vouched>| {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        nodes.clone().oneshot(request).await.unwrap()
    };
    let named = |name: &str| Some(Vouched(Some(name.to_owned())));
    let begun = ask("POST", "/v2/app/blobs/uploads/", named("alice")).await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let session = begun.headers()[LOCATION].to_str().unwrap();
    assert_eq!(ask("GET", session, named("alice")).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(ask("GET", session, named("bob")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask("GET", session, Some(Vouched(None))).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask("GET", session, None).await.status(), StatusCode::FORBIDDEN);
}
