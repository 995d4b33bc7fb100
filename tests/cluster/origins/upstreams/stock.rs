//! Debian's docker-registry as the upstream, for whoever knows the password.

use shoal::image::Image;

use super::super::rig::{COUNT, Rig, pull};
use super::{APP, ask, sum, upstream};
use crate::copies::rig::{Stock, User};
use crate::support::MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_registry_is_pulled_through_with_its_password() {
    let Some(stock) = Stock::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(&good, "secret\n").unwrap();
    std::fs::write(&bad, "wrong\n").unwrap();
    let login = |file| format!("username = \"me\"\npassword_file = {file:?}");
    let other = upstream(stock.address, &login(&bad)).replace("hub.example", "other.example");
    let more = upstream(stock.address, &login(&good)) + &other;
    let rig = Rig::start_configured(COUNT, &(more)).await;

    let image = Image::generate(5 * MIB, 2, 930);
    rig.client(0).push("staging/app", "1", &image, |_| ()).await.unwrap();
    let user = User::logged_in(&[stock.address]);
    let from = format!("{}/staging/app:1", rig.origin(0).registry());
    user.does(&["copy", &from, &format!("{}/team/app:1", stock.address)]);

    for place in 0..COUNT {
        pull(&rig.client(place), APP, "1", &image).await.unwrap();
    }
    let tags = "shoal_origin_upstream_requests_total{kind=\"tag\",result=\"ok\",upstream=\"hub.example\"}";
    assert!(sum(&rig, tags).await >= 1.0);
    let (status, _, text) = ask(rig.origin(0), "other.example/team/app", "1").await;
    assert_eq!(status, 404);
    assert!(text.contains("access denied") && !text.contains("wrong\n"), "{text}");
    assert_eq!(ask(rig.origin(1), APP, "absent").await.0, 404);
}
