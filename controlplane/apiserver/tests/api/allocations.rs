//! Cluster addresses, node ports and pod networks: given once, kept, given back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn the_api_has_the_first_address() {
    let api = Api::start().await;
    let own = api.get(&format!("{SERVICES}/kubernetes")).await.json;
    assert_eq!(own["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes").await.json;
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 6443);
}

#[tokio::test]
async fn addresses_and_ports_are_unique_and_come_back() {
    let api = Api::start().await;
    let first = api.create(SERVICES, service("a", "NodePort")).await;
    let second = api.create(SERVICES, service("b", "NodePort")).await;
    assert_ne!(first["spec"]["clusterIP"], second["spec"]["clusterIP"]);
    let port = first["spec"]["ports"][0]["nodePort"].as_u64().expect("a port");
    assert!((30_000..=32_767).contains(&port));
    assert_ne!(first["spec"]["ports"][0]["nodePort"], second["spec"]["ports"][0]["nodePort"]);

    // Who sends neither keeps both.
    let kept = api.put(&format!("{SERVICES}/a"), service("a", "NodePort")).await;
    assert_eq!(kept.code, 200, "{}", kept.text);
    assert_eq!(kept.json["spec"]["clusterIP"], first["spec"]["clusterIP"]);
    assert_eq!(kept.json["spec"]["ports"][0]["nodePort"], port);

    let mut greedy = service("c", "NodePort");
    greedy["spec"]["ports"][0]["nodePort"] = json!(port);
    let refused = api.post(SERVICES, greedy.clone()).await;
    assert_eq!(refused.code, 422);
    assert!(refused.text.contains("provided port is already allocated"), "{}", refused.text);
    assert_eq!(api.delete(&format!("{SERVICES}/a")).await.code, 200);
    assert_eq!(api.post(SERVICES, greedy).await.code, 201);
}

#[tokio::test]
async fn nodes_that_register_at_once_have_networks_of_their_own() {
    const NODES: &str = "/api/v1/nodes";
    let api = Api::start().await;
    let node = |name: &str| json!({"metadata": {"name": name}});
    let made = futures_util::future::join_all((0..8).map(|n| api.create(NODES, node(&format!("n{n}"))))).await;
    let network = |node: &Value| node["spec"]["podCIDR"].as_str().expect("a network").to_owned();
    let networks: BTreeSet<String> = made.iter().map(network).collect();
    assert_eq!(networks.len(), 8, "{networks:?}");
    assert_eq!(made[0]["spec"]["podCIDRs"], json!([made[0]["spec"]["podCIDR"]]));

    let mut greedy = node("greedy");
    greedy["spec"] = json!({"podCIDR": network(&made[3]), "podCIDRs": [network(&made[3])]});
    let refused = api.post(NODES, greedy.clone()).await;
    assert_eq!(refused.code, 422);
    assert!(refused.text.contains("the network of another node"), "{}", refused.text);
    let name = made[3]["metadata"]["name"].as_str().expect("a name");
    assert_eq!(api.delete(&format!("{NODES}/{name}")).await.code, 200);
    assert_eq!(api.post(NODES, greedy).await.code, 201);
}

#[tokio::test]
async fn a_node_s_network_has_room_for_its_pods() {
    const NODES: &str = "/api/v1/nodes";
    let api = Api::start().await;
    let large = json!({"metadata": {"name": "large"}, "status": {"capacity": {"pods": "10000"}}});
    let made = api.create(NODES, large.clone()).await;
    let network = made["spec"]["podCIDR"].as_str().expect("a network");
    assert!(network.ends_with("/18"), "{network}");
    // Nobody gets a part of it.
    let part = network.replace("/18", "/24");
    let small = json!({"metadata": {"name": "small"}, "spec": {"podCIDR": part, "podCIDRs": [part]}});
    assert_eq!(api.post(NODES, small.clone()).await.code, 422);
    assert_eq!(api.delete(&format!("{NODES}/large")).await.code, 200);
    assert_eq!(api.post(NODES, small).await.code, 201);
}
