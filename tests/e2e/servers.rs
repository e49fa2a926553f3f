//! The servers as an operator handles them: who they are, who leads, their keys, and backups.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use shoal_tests::{Cluster, Tool, eventually, free_ports};

use crate::examples::PATIENCE;

pub fn members_are_listed_and_leadership_moves(cluster: &mut Cluster) -> anyhow::Result<()> {
    let listed = cluster.shoal(&["member", "list"])?;
    let rows: Vec<&str> = listed.lines().skip(1).collect();
    ensure!(rows.len() == 3 && rows.iter().all(|row| row.contains(" reachable ")), "{listed}");
    ensure!(rows.iter().filter(|row| row.contains(" leader ")).count() == 1, "{listed}");
    let leader = cluster.leader("server-1")?;
    let other = cluster.names("server")?.into_iter().find(|name| *name != leader).context("no other server")?;
    let moved = cluster.shoal(&["member", "transfer-leader", &other])?;
    let leads = |text: &str| text.lines().any(|row| row.contains(&format!(" {other} ")) && row.contains(" leader "));
    ensure!(leads(&moved), "{moved}");
    eventually("the loops run there", PATIENCE, || {
        ensure!(cluster.leader("server-1")? == other, "the lease does not name {other} yet");
        Ok(())
    })?;

    let refused = cluster.shoal(&["member", "remove", "server-9"]).map(drop);
    let refused = format!("{:#}", refused.err().context("a server that is not there was removed")?);
    ensure!(refused.contains("there is no server \"server-9\""), "{refused}");
    let refused = cluster.shoal(&["member", "replace", &leader]).map(drop);
    let refused = format!("{:#}", refused.err().context("a server that runs was to be replaced")?);
    ensure!(refused.contains("stop it before"), "{refused}");
    Ok(())
}

pub fn the_encryption_key_is_changed_on_every_server(cluster: &mut Cluster) -> anyhow::Result<()> {
    let rotated = cluster.shoal(&["key", "rotate"])?;
    ensure!(rotated.starts_with("key 2 seals from now on\n"), "{rotated}");
    ensure!(rotated.matches("has sealed everything anew").count() == 3, "{rotated}");
    let listed = cluster.shoal(&["key", "list"])?;
    ensure!(listed == "1\n2  seals\n", "{listed}");
    Ok(())
}

const PASSPHRASE: (&str, &str) = ("SHOAL_BACKUP_PASSPHRASE", "correct horse battery staple");

pub fn a_backup_is_checked_and_restored_into_a_cluster_of_its_own(cluster: &mut Cluster) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| -> anyhow::Result<String> {
        Ok(folder.path().join(name).to_str().context("a folder whose name is no text")?.to_owned())
    };
    let (file, data) = (path("cluster.shoal-backup")?, path("restored")?);
    let from = cluster.data();
    let from = from.to_str().context("a folder whose name is no text")?;
    cluster.kubectl.ok(&["create", "secret", "generic", "kept", "--from-literal=password=hunter2"])?;
    let made = cluster.run(&["backup", "create", "--data-dir", from, &file], &[PASSPHRASE])?;
    ensure!(made.contains("with the CA and the encryption keys"), "{made}");
    cluster.kubectl.ok(&["create", "configmap", "later", "--from-literal=a=b"])?;

    let verified = cluster.run(&["backup", "verify", &file], &[PASSPHRASE])?;
    ensure!(verified.contains("its checksum is right, and all of its"), "{verified}");
    let wrong = cluster.run(&["backup", "verify", &file], &[(PASSPHRASE.0, "wrong")]).map(drop);
    let wrong = format!("{:#}", wrong.err().context("any passphrase opens it")?);
    ensure!(wrong.contains("the passphrase is wrong"), "{wrong}");

    let restored = cluster.run(&["restore", &file, "--data-dir", &data], &[PASSPHRASE])?;
    ensure!(restored.contains("starts the new cluster"), "{restored}");
    let port = free_ports(1)?.to_string();
    let started = cluster
        .run(&["up", "--data-dir", &data, "--servers", "1", "--workers", "1", "--api-port", &port, "--detach"], &[]);
    let looked = started.and_then(|_| look(cluster, &PathBuf::from(&data)));
    let stopped = cluster.run(&["down", "--data-dir", &data], &[]);
    looked?;
    stopped?;
    cluster.kubectl.ok(&["delete", "configmap", "later"])?;
    Ok(())
}

/// The restored cluster has what there was, and works.
fn look(cluster: &Cluster, data: &std::path::Path) -> anyhow::Result<()> {
    let restored: Tool = cluster.kubectl.with_kubeconfig(&data.join("admin.kubeconfig"));
    let names = |kubectl: &Tool, what: &str| kubectl.ok(&["get", what, "--all-namespaces", "-o", "name"]);
    for what in ["secrets", "deployments", "services", "clusterroles", "serviceaccounts"] {
        let (before, after) = (names(&cluster.kubectl, what)?, names(&restored, what)?);
        ensure!(before == after, "{what}: there were\n{before}and there are\n{after}");
    }
    let password = restored.ok(&["get", "secret", "kept", "-o", "jsonpath={.data.password}"])?;
    ensure!(password == "aHVudGVyMg==", "{password}");
    let later = restored.run(&["get", "configmap", "later"])?;
    ensure!(later.code != 0 && later.stderr.contains("NotFound"), "{}{}", later.stdout, later.stderr);
    restored.ok(&["create", "configmap", "new", "--from-literal=a=b"])?;
    eventually("its worker is ready", PATIENCE, || {
        let nodes = restored.ok(&["get", "node", "worker-1", "--no-headers"])?;
        ensure!(nodes.contains(" Ready "), "{nodes}");
        Ok(())
    })
}
