//! `shoal member`: the control-plane servers.

use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::kubeconfig::Target;

/// List, remove and replace control-plane servers, and say which one leads.
///
/// A server is added by starting it with --join and a token (`shoal token create --role server`).
#[derive(Args)]
pub struct Member {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the servers, and how they do.
    List,
    /// Say how a new server is added: make a token for it, and print the command.
    Add {
        /// The new server's name.
        name: String,
    },
    /// Take a server out of the cluster; the one that leads hands leadership on first.
    #[command(after_help = "Example:\n  shoal member remove server-3")]
    Remove {
        /// The server's name or id.
        name: String,
    },
    /// Say how a server that was lost is replaced: make a token for one in its place, and print the command.
    #[command(after_help = "Example:\n  shoal member replace server-3")]
    Replace {
        /// The lost server's name or id.
        name: String,
    },
    /// Have another server lead.
    TransferLeader {
        /// The server's name or id [default: the one that is least behind].
        name: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: u64,
    name: String,
    link_address: String,
    api_address: String,
    leader: bool,
    voter: Option<bool>,
    reachable: Option<bool>,
    behind: Option<u64>,
}

#[derive(Deserialize)]
struct Replacement {
    name: String,
    token: String,
    servers: Vec<String>,
}

impl Member {
    /// Asks the cluster.
    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let members: Vec<Listed> = match &self.verb {
            Verb::List => client.json(Method::GET, "/shoal/v1/members", None).await?,
            Verb::Remove { name } => client.json(Method::DELETE, &format!("/shoal/v1/members/{name}"), None).await?,
            Verb::TransferLeader { name } => {
                let wish = serde_json::to_vec(&json!({ "to": name }))?;
                client.json(Method::POST, "/shoal/v1/members/leader", Some(wish)).await?
            }
            Verb::Add { name } => {
                let wish = serde_json::to_vec(&json!({ "role": "server" }))?;
                #[derive(Deserialize)]
                struct Made {
                    token: String,
                    servers: Vec<String>,
                }
                let made: Made = client.json(Method::POST, "/shoal/v1/tokens", Some(wish)).await?;
                println!("{}", command(&Replacement { name: name.clone(), token: made.token, servers: made.servers }));
                return Ok(());
            }
            Verb::Replace { name } => {
                let path = format!("/shoal/v1/members/{name}/replacement");
                let replacement: Replacement = client.json(Method::POST, &path, None).await?;
                println!("{}", command(&replacement));
                return Ok(());
            }
        };
        print!("{}", table(&members));
        Ok(())
    }
}

/// The command that starts the new server.
fn command(new: &Replacement) -> String {
    format!(
        "shoal server --name {} --data-dir DIR --api-address ADDRESS --join {} --token {}",
        new.name,
        new.servers.join(","),
        new.token
    )
}

fn table(members: &[Listed]) -> String {
    let mut rows = vec![["ID", "NAME", "ROLE", "STATUS", "BEHIND", "API", "LINK"].map(str::to_string)];
    for member in members {
        let role = match (member.leader, member.voter) {
            (true, _) => "leader",
            (false, Some(false)) => "learner",
            (false, Some(true)) => "voter",
            (false, None) => "?",
        };
        let status = match member.reachable {
            Some(true) => "reachable",
            Some(false) => "unreachable",
            None => "no leader is known",
        };
        let behind = member.behind.map_or("-".to_string(), |behind| behind.to_string());
        rows.push([
            member.id.to_string(),
            member.name.clone(),
            role.to_string(),
            status.to_string(),
            behind,
            member.api_address.clone(),
            member.link_address.clone(),
        ]);
    }
    super::columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_who_leads_and_who_is_gone() {
        let text = r#"[
            {"id": 1, "name": "server-1", "linkAddress": "a:1", "apiAddress": "a:2", "leader": true, "voter": true, "reachable": true, "behind": 0},
            {"id": 12, "name": "b", "linkAddress": "b:1", "apiAddress": "b:2", "leader": false, "voter": true, "reachable": false}
        ]"#;
        let members: Vec<Listed> = serde_json::from_str(text).expect("members");
        let expected = "\
ID  NAME      ROLE    STATUS       BEHIND  API  LINK
1   server-1  leader  reachable    0       a:2  a:1
12  b         voter   unreachable  -       b:2  b:1
";
        assert_eq!(table(&members), expected);
    }
}
