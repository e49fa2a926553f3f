//! Lists: pages of one revision, selectors, versions, tables.

use serde_json::{Value, json};

use crate::support::*;

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn pages_show_one_revision_whatever_is_written_between_them() {
    let api = Api::start().await;
    for index in 0..7 {
        api.create(CONFIG_MAPS, config_map(&format!("c{index}"))).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=3")).await.json;
    assert_eq!(names(&first), ["c0", "c1", "c2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    assert_eq!((&first["kind"], &first["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));

    api.delete(&format!("{CONFIG_MAPS}/c4")).await;
    api.create(CONFIG_MAPS, config_map("c33")).await;

    let mut seen = names(&first);
    let mut page = first.clone();
    while let Some(token) = page["metadata"]["continue"].as_str() {
        page = api.get(&format!("{CONFIG_MAPS}?limit=3&continue={token}")).await.json;
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        seen.extend(names(&page));
    }
    assert_eq!(seen, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}?limit=3&continue=rubbish")).await.code, 400);
}

#[tokio::test]
async fn a_page_is_full_of_what_is_selected() {
    let api = Api::start().await;
    for index in 0..6 {
        let mut object = config_map(&format!("c{index}"));
        object["metadata"]["labels"] = json!({"even": (index % 2 == 0).to_string()});
        api.create(CONFIG_MAPS, object).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=even%3Dtrue")).await.json;
    assert_eq!(names(&first), ["c0", "c2"]);
    assert!(first["metadata"].get("remainingItemCount").is_none());
    let token = first["metadata"]["continue"].as_str().expect("there is more");
    let second = api.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=even%3Dtrue&continue={token}")).await.json;
    assert_eq!(names(&second), ["c4"]);
    assert!(second["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn fields_select_and_unknown_fields_do_not() {
    let api = Api::start().await;
    api.create(PODS, pod("a")).await;
    api.create(PODS, pod("b")).await;
    let selected = api.get("/api/v1/pods?fieldSelector=metadata.name%3Db,metadata.namespace%3Ddefault").await;
    assert_eq!(names(&selected.json), ["b"]);
    let refused = api.get("/api/v1/pods?fieldSelector=spec.nonsense%3Db").await;
    assert_eq!(refused.code, 400);
    assert!(refused.text.contains("field label not supported"), "{}", refused.text);
    assert_eq!(api.get("/api/v1/pods?labelSelector=a%3D%3D%3Db").await.code, 400);
}

#[tokio::test]
async fn a_list_is_of_the_version_that_it_asks_for() {
    let api = Api::start().await;
    let created = api.create(CONFIG_MAPS, config_map("a")).await;
    let version = created["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    api.create(CONFIG_MAPS, config_map("b")).await;
    let exact = api.get(&format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await.json;
    assert_eq!(names(&exact), ["a"]);
    let newer = api.get(&format!("{CONFIG_MAPS}?resourceVersion={version}")).await.json;
    assert_eq!(names(&newer), ["a", "b"]);
    let future = api.get(&format!("{CONFIG_MAPS}?resourceVersion=99999999")).await;
    assert_eq!(future.code, 504);
    assert_eq!(future.json["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn kubectl_gets_tables() {
    let api = Api::start().await;
    api.create(CONFIG_MAPS, config_map("a")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = api.send(admin(), "GET", CONFIG_MAPS, &accept, "").await.json;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = api.send(admin(), "GET", &format!("{CONFIG_MAPS}/a"), &accept, "").await.json;
    assert_eq!((&one["kind"], one["rows"].as_array().map(Vec::len)), (&json!("Table"), Some(1)));
    let accept = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let partial = api.send(admin(), "GET", CONFIG_MAPS, &accept, "").await.json;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {"verb": "get"}}});
    let refused = api
        .send(admin(), "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &accept, review.to_string())
        .await;
    assert_eq!(refused.code, 406);
}
