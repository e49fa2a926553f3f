//! `shoal token`: join tokens.

use anyhow::Context;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::kubeconfig::Target;

/// Make a token with which a server or a worker joins.
#[derive(Args)]
pub struct Token {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token and print it.
    #[command(after_help = "Examples:\n  shoal token create\n  shoal token create --role server --ttl-hours 1")]
    Create {
        /// What its holder may become.
        #[arg(long, default_value = "worker", value_parser = ["server", "worker"])]
        role: String,
        /// For how many hours it is valid; 0 for ever.
        #[arg(long, default_value_t = 24)]
        ttl_hours: u64,
    },
}

impl Token {
    /// Asks the cluster.
    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        let Verb::Create { role, ttl_hours } = self.verb;
        let wish = serde_json::to_vec(&json!({"role": role, "ttlSeconds": ttl_hours * 3600}))?;
        let reply: Value =
            client.json(Method::POST, "/shoal/v1/tokens", Some(wish)).await.context("failed to make a token")?;
        println!("{}", reply["token"].as_str().context("the cluster gave no token")?);
        Ok(())
    }
}
