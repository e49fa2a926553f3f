//! Servers that come and go, lose their disks, change their keys, and start again from a backup: in one process, on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};
use shoal_client::{Client, Kubeconfig, ListOptions, TlsTransport};
use shoal_controlplane::backup::{self, Opening};
use shoal_controlplane::{Backups, Join, JoinRole, JoinToken, Keyring, Server, ServerConfig};

/// Nothing here takes as long; it keeps a test that waits for something that never comes from waiting for ever.
const DEADLINE: Duration = Duration::from_secs(90);

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn eventually<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come about"))
}

fn config(name: &str, directory: &Path) -> ServerConfig {
    let mut config = ServerConfig::new(name, directory.join(name));
    config.api_address = ANY;
    config.link_address = ANY;
    config
}

fn joining(name: &str, directory: &Path, first: &Server, token: JoinToken) -> ServerConfig {
    ServerConfig {
        join: Some(Join { addresses: vec![first.link_address().to_string()], token }),
        ..config(name, directory)
    }
}

async fn start(config: ServerConfig) -> Server {
    let server = eventually("a start", Server::start(config)).await.expect("a server");
    eventually("readiness", server.ready()).await;
    server
}

async fn three(directory: &Path) -> [Server; 3] {
    let first = start(config("server-1", directory)).await;
    let token = first.first_token(JoinRole::Server).expect("a token");
    let second = start(joining("server-2", directory, &first, token.clone())).await;
    let third = start(joining("server-3", directory, &first, token)).await;
    [first, second, third]
}

fn admin(directory: &Path, name: &str) -> Client {
    let kubeconfig = Kubeconfig::load(&directory.join(name).join("admin.kubeconfig")).expect("a kubeconfig");
    Client::new(Arc::new(TlsTransport::new(&kubeconfig).expect("a transport")))
}

fn config_map(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_string());
    object.metadata.namespace = Some("default".to_string());
    object
}

async fn ask(client: &Client, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(shoal_client::bytes_body(body.to_string()));
    let response = client.raw(request.expect("a request")).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn names(client: &Client) -> Vec<String> {
    let (status, members) = ask(client, "GET", "/shoal/v1/members", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let members = members.as_array().expect("a list").iter();
    members.map(|member| member["name"].as_str().expect("a name").to_string()).collect()
}

async fn leader(client: &Client) -> String {
    let known = async {
        loop {
            let (_, members) = ask(client, "GET", "/shoal/v1/members", Value::Null).await;
            let leader = members.as_array().into_iter().flatten().find(|member| member["leader"] == true);
            if let Some(leader) = leader {
                return leader["name"].as_str().expect("a name").to_string();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    eventually("a leader", known).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_moved_and_removed_and_the_removed_server_ends() {
    let directory = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(directory.path()).await;
    let client = admin(directory.path(), "server-2");
    let (status, _) = ask(&client, "POST", "/shoal/v1/members/leader", json!({"to": "server-3"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(leader(&client).await, "server-3");
    let (status, body) = ask(&client, "DELETE", "/shoal/v1/members/server-3", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let reason = eventually("the removed server's end", third.failed()).await;
    assert!(reason.contains("was removed from the cluster"), "{reason}");
    third.shutdown().await;
    assert_eq!(names(&client).await, ["server-1", "server-2"]);
    client.create(&config_map("after")).await.expect("the others go on");

    // It learns so again when it is started.
    let third = eventually("a start", Server::start(config("server-3", directory.path()))).await.expect("it starts");
    let reason = eventually("the removed server's end", third.failed()).await;
    assert!(reason.contains("was removed"), "{reason}");
    third.shutdown().await;

    let (status, body) = ask(&client, "DELETE", "/shoal/v1/members/server-9", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body["error"].as_str().is_some_and(|text| text.contains("there are server-1, server-2")), "{body}");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_server_is_replaced_under_its_name() {
    let directory = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(directory.path()).await;
    let client = admin(directory.path(), "server-1");
    let path = "/shoal/v1/members/server-3/replacement";
    let (status, body) = ask(&client, "POST", path, Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT, "it runs: {body}");
    third.shutdown().await;
    std::fs::remove_dir_all(directory.path().join("server-3")).expect("removed");

    // Without a token that says so, its name is taken.
    let usual = first.first_token(JoinRole::Server).expect("a token");
    let refused = Server::start(joining("server-3", directory.path(), &first, usual)).await.map(drop);
    let refused = format!("{:#}", refused.expect_err("refused"));
    assert!(refused.contains("shoal member replace server-3"), "{refused}");
    let token = eventually("a token", async {
        loop {
            let (status, body) = ask(&client, "POST", path, Value::Null).await;
            if status == StatusCode::OK {
                break body["token"].as_str().expect("a token").parse::<JoinToken>().expect("a token");
            }
            // It counts as running for a moment after its end.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let other = Server::start(joining("server-4", directory.path(), &first, token.clone())).await.map(drop);
    let other = format!("{:#}", other.expect_err("refused"));
    assert!(other.contains("replaces \"server-3\""), "{other}");
    let _ = std::fs::remove_dir_all(directory.path().join("server-3"));
    let third = start(joining("server-3", directory.path(), &first, token)).await;
    assert_eq!(names(&client).await.len(), 3);
    assert!(third.member().id > 3);
    for server in [first, second, third] {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_store_is_told_from_a_new_one_and_repairs_itself_on_request() {
    let directory = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(directory.path()).await;
    let client = admin(directory.path(), "server-1");
    client.create(&config_map("kept")).await.expect("created");
    // The addresses of the others are noted now and then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let id = third.member().id;
    third.shutdown().await;
    std::fs::remove_dir_all(directory.path().join("server-3/raft")).expect("removed");
    let refused = Server::start(config("server-3", directory.path())).await.map(drop).expect_err("refused");
    let refused = format!("{refused:#}");
    assert!(refused.contains("--repair") && refused.contains("disk was lost"), "{refused}");

    let repaired = ServerConfig { repair: true, ..config("server-3", directory.path()) };
    let third = start(repaired).await;
    assert_ne!(third.member().id, id);
    let mut servers = names(&client).await;
    servers.sort();
    assert_eq!(servers, ["server-1", "server-2", "server-3"]);
    admin(directory.path(), "server-3").get::<ConfigMap>("default", "kept").await.expect("it has everything again");
    third.shutdown().await;

    // Damage, and lost keys, are repaired alike.
    let wal = directory.path().join("server-3/raft/wal");
    let log =
        std::fs::read_dir(&wal).expect("a folder").map(|file| file.expect("a file").path()).min().expect("a file");
    let mut content = std::fs::read(&log).expect("read");
    content[100] ^= 1;
    std::fs::write(&log, content).expect("written");
    std::fs::remove_file(directory.path().join("server-3/encryption.keys")).expect("removed");
    let refused = Server::start(config("server-3", directory.path())).await.map(drop).expect_err("refused");
    let refused = format!("{refused:#}");
    assert!(refused.contains("encryption.keys") && refused.contains("--repair"), "{refused}");
    let third = start(ServerConfig { repair: true, ..config("server-3", directory.path()) }).await;
    third.shutdown().await;
    let third = start(config("server-3", directory.path())).await;
    for server in [first, second, third] {
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_on_disk_and_the_key_is_changed_everywhere() {
    let directory = tempfile::tempdir().expect("a folder");
    let servers = three(directory.path()).await;
    let client = admin(directory.path(), "server-2");
    let mut secret = Secret::default();
    secret.metadata.name = Some("s".to_string());
    secret.metadata.namespace = Some("default".to_string());
    secret.string_data = Some([("password".to_string(), "correct horse battery staple".to_string())].into());
    client.create(&secret).await.expect("created");
    let (status, rotated) = ask(&client, "POST", "/shoal/v1/keys/rotate", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{rotated}");
    assert_eq!(rotated["active"], 2);
    assert!(rotated["servers"].as_array().is_some_and(|servers| servers.len() == 3), "{rotated}");
    assert!(rotated["servers"].as_array().expect("a list").iter().all(|server| server["done"] == true), "{rotated}");
    for server in servers {
        server.shutdown().await;
    }
    // "correct horse" in base64, as the API writes it.
    for needle in [&b"correct horse"[..], b"Y29ycmVjdCBob3JzZ", b"BEGIN PRIVATE KEY"] {
        for name in ["server-1", "server-2", "server-3"] {
            let mut seen = 0;
            for file in files(&directory.path().join(name)) {
                let own = ["server.key", "admin.key", "admin.kubeconfig"];
                if own.iter().any(|name| file.ends_with(name)) && needle.starts_with(b"BEGIN") {
                    continue;
                }
                let content = std::fs::read(&file).expect("read");
                assert!(!content.windows(needle.len()).any(|window| window == needle), "{}", file.display());
                seen += content.len();
            }
            assert!(seen > 1000);
        }
    }
    // No file needs the first key any more.
    for name in ["server-1", "server-2", "server-3"] {
        let path = directory.path().join(name).join("encryption.keys");
        let text = std::fs::read_to_string(&path).expect("read");
        let mut ring: Value = serde_json::from_str(&text).expect("JSON");
        ring["keys"].as_object_mut().expect("keys").remove("1").expect("the first key");
        std::fs::write(&path, ring.to_string()).expect("written");
    }
    let mut started = Vec::new();
    for name in ["server-1", "server-2", "server-3"] {
        started.push(eventually("a start", Server::start(config(name, directory.path()))).await.expect("a server"));
    }
    let kept = client.get::<Secret>("default", "s").await.expect("it is there");
    let password = &kept.data.expect("data")["password"].0;
    assert_eq!(password, b"correct horse battery staple");
    for server in started {
        server.shutdown().await;
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

async fn back_up(client: &Client, passphrase: Option<&str>, file: &Path) {
    let wish = json!({ "passphrase": passphrase }).to_string();
    let request = Request::builder().method(Method::POST).uri("/shoal/v1/backup").body(shoal_client::bytes_body(wish));
    let response = client.raw(request.expect("a request")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let content = response.into_body().collect().await.expect("a body").to_bytes();
    std::fs::write(file, content).expect("written");
}

async fn everything(client: &Client) -> Vec<(String, Option<String>)> {
    let listed = client.list::<ConfigMap>("", &ListOptions::default()).await.expect("a list");
    let mut objects: Vec<(String, Option<String>)> = listed
        .items
        .into_iter()
        .filter(|object| object.metadata.name.as_deref() != Some("later"))
        .map(|object| (object.metadata.name.unwrap_or_default(), object.metadata.resource_version))
        .collect();
    objects.sort();
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_has_every_object_its_ca_and_later_revisions() {
    let directory = tempfile::tempdir().expect("a folder");
    let servers = three(directory.path()).await;
    let old = admin(directory.path(), "server-3");
    for number in 0..40 {
        old.create(&config_map(&format!("object-{number}"))).await.expect("created");
    }
    let (with, without) = (directory.path().join("with"), directory.path().join("without"));
    back_up(&old, Some("correct horse"), &with).await;
    back_up(&old, None, &without).await;
    let later = old.create(&config_map("later")).await.expect("created");
    let seen: u64 = later.metadata.resource_version.expect("a version").parse().expect("a number");
    let before = everything(&old).await;
    let keys = std::fs::read_to_string(directory.path().join("server-2/encryption.keys")).expect("read");
    let worker_token = servers[0].first_token(JoinRole::Worker).expect("a token");
    for server in servers {
        server.shutdown().await;
    }

    // With the passphrase: the CA is the former one, so the former kubeconfig is good for the new cluster.
    let passphrase = Opening::Passphrase("correct horse".to_string());
    let wrong = Opening::Passphrase("battery staple".to_string());
    let target = directory.path().join("again/server-1");
    let refused = shoal_controlplane::restore(&with, &target, &wrong).map(drop).expect_err("refused");
    assert!(format!("{refused:#}").contains("passphrase is wrong"), "{refused:#}");
    assert!(shoal_controlplane::restore(&with, &target, &passphrase).expect("restored").keeps_ca);
    let twice = shoal_controlplane::restore(&with, &target, &passphrase).map(drop).expect_err("refused");
    assert!(format!("{twice:#}").contains("a folder of its own"), "{twice:#}");
    let again = directory.path().join("again");
    let first = start(config("server-1", &again)).await;
    assert_eq!(first.member().id, 4, "the former ids are not used again");
    let client = admin(&again, "server-1");
    assert_eq!(everything(&client).await, before);
    assert!(client.get::<ConfigMap>("default", "later").await.expect_err("it came after").is_not_found());
    let new = client.create(&config_map("new")).await.expect("created");
    let new: u64 = new.metadata.resource_version.expect("a version").parse().expect("a number");
    assert!(new > seen + 1_000_000, "{new} after {seen}");
    // A client that goes on from before is told to list again.
    let watch = client.watch::<ConfigMap>("default", &ListOptions::default(), &seen.to_string()).await;
    let expired = match watch {
        Ok(mut watch) => watch.next().await.map(drop).expect_err("too old"),
        Err(error) => error,
    };
    assert!(expired.is_expired(), "{expired}");
    // Tokens and what else is in the store are as before; it grows to three, and starts again.
    let wish = shoal_link::join::Wish { name: "worker-1".to_string(), addresses: Vec::new(), details: Value::Null };
    shoal_link::join::join(first.link_address(), &worker_token, &wish).await.expect("the former token and CA");
    let token = first.first_token(JoinRole::Server).expect("a token");
    let second = start(joining("server-2", &again, &first, token.clone())).await;
    let third = start(joining("server-3", &again, &first, token)).await;
    assert_eq!(everything(&admin(&again, "server-3")).await.len(), before.len() + 1);
    for server in [first, second, third] {
        server.shutdown().await;
    }
    let first = eventually("a start", Server::start(config("server-1", &again))).await.expect("a server");
    first.shutdown().await;

    // Without one: the keys open it, and the CA is new.
    let opening = Opening::Keys(Keyring::parse(&keys).expect("a ring"));
    let target = directory.path().join("keys/server-1");
    assert!(!shoal_controlplane::restore(&without, &target, &opening).expect("restored").keeps_ca);
    let keys = directory.path().join("keys");
    let first = start(config("server-1", &keys)).await;
    // The CA's certificate, which each namespace is told, is another one.
    let but_the_ca = |mut objects: Vec<(String, Option<String>)>| {
        objects.retain(|(name, _)| name != "kube-root-ca.crt");
        objects
    };
    assert_eq!(but_the_ca(everything(&admin(&keys, "server-1")).await), but_the_ca(before));
    first.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_by_themselves_and_the_oldest_go() {
    let directory = tempfile::tempdir().expect("a folder");
    let folder = directory.path().join("backups");
    std::fs::create_dir(&folder).expect("made");
    for year in 2001..2005 {
        std::fs::write(folder.join(format!("{year}0101T000000Z.shoal-backup")), "old").expect("written");
    }
    std::fs::write(folder.join("notes.txt"), "mine").expect("written");
    let backups = Backups {
        directory: folder.clone(),
        every: Duration::from_secs(3600),
        keep: 2,
        passphrase: Some("correct horse".to_string()),
    };
    let server = start(ServerConfig { backups: Some(backups), ..config("server-1", directory.path()) }).await;
    let made = eventually("a backup", async {
        loop {
            let mut names: Vec<String> = std::fs::read_dir(&folder)
                .expect("a folder")
                .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            if names.len() == 3 && !names.iter().any(|name| name.ends_with("partial")) {
                break names;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(made[0], "20040101T000000Z.shoal-backup");
    assert_eq!(made[2], "notes.txt");
    let file = std::fs::File::open(folder.join(&made[1])).expect("opened");
    let opening = Opening::Passphrase("correct horse".to_string());
    let (head, _) = backup::read(std::io::BufReader::new(file), Some(&opening)).expect("a whole backup");
    assert!(head.has_secrets());
    server.shutdown().await;
}
