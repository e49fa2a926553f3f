//! `shoal key`: the keys with which the servers seal their files.

use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;

use crate::kubeconfig::Target;

/// Show and change the keys with which the servers seal what they have on disk.
#[derive(Args)]
pub struct Key {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the keys' ids, and which one seals.
    List,
    /// Make a new key, and have all servers seal everything anew with it.
    Rotate,
}

#[derive(Deserialize)]
struct Keys {
    active: u32,
    keys: Vec<u32>,
}

#[derive(Deserialize)]
struct Rotated {
    active: u32,
    servers: Vec<Reached>,
}

#[derive(Deserialize)]
struct Reached {
    name: String,
    done: bool,
}

impl Key {
    /// Asks the cluster.
    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        match self.verb {
            Verb::List => {
                let keys: Keys = client.json(Method::GET, "/shoal/v1/keys", None).await?;
                for key in keys.keys {
                    println!("{key}{}", if key == keys.active { "  seals" } else { "" });
                }
            }
            Verb::Rotate => {
                let rotated: Rotated = client.json(Method::POST, "/shoal/v1/keys/rotate", None).await?;
                println!("key {} seals from now on", rotated.active);
                for server in rotated.servers {
                    let state =
                        if server.done { "has sealed everything anew" } else { "has yet to seal everything anew" };
                    println!("{} {state}", server.name);
                }
            }
        }
        Ok(())
    }
}
