//! The one binary `shoal`: reads the command line and hands over to one file per verb.

mod cluster;
mod demo;
mod kubeconfig;
mod registry;
mod verbs;
mod waiting;

use clap::{CommandFactory, Parser, Subcommand};

/// A WebAssembly-workload microcluster that speaks Kubernetes' API.
#[derive(Parser)]
#[command(name = "shoal", version, about, propagate_version = true, max_term_width = 110)]
#[command(after_help = "\
Examples:
  shoal demo                                  a cluster with the bundled examples, answering requests
  shoal up --servers 3 --workers 2 --detach   a cluster of five processes on this machine
  kubectl --kubeconfig ~/.shoal/admin.kubeconfig get nodes
  shoal push hello.wasm hello:1               a module into the cluster's own registry")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster on this machine and wait until all of it is ready.
    Up(verbs::up::Up),
    /// Stop the cluster that `up --detach` started.
    Down(verbs::down::Down),
    /// Run one control-plane server.
    Server(Box<verbs::server::ServerArguments>),
    /// Run one worker.
    Worker(Box<verbs::worker::WorkerArguments>),
    /// Make a token with which a server or a worker joins.
    Token(verbs::token::Token),
    /// List, add, remove and replace control-plane servers.
    Member(verbs::member::Member),
    /// Write and check backups of the cluster's state.
    Backup(verbs::backup::Backup),
    /// Make a new cluster out of a backup.
    Restore(verbs::backup::Restore),
    /// Show and change the keys with which the servers seal their files.
    Key(verbs::key::Key),
    /// Push a Wasm module into the cluster's registry.
    Push(verbs::push::Push),
    /// List, look into and remove the images in the cluster's registry.
    Image(verbs::image::Image),
    /// Start a cluster with the bundled examples and send them requests.
    Demo(verbs::demo::Demo),
    /// Say which version this is, and which Kubernetes API it speaks.
    Version,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  shoal completions bash > ~/.local/share/bash-completion/completions/shoal")]
    Completions {
        /// The shell that will read it.
        shell: clap_complete::Shell,
    },
}

fn main() -> std::process::ExitCode {
    // Wasmtime would capture a native backtrace for every trap of a guest, which costs more than the request.
    let arguments = Arguments::parse();
    match run(arguments.verb) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shoal: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    shoal_link::install_crypto();
    match verb {
        Verb::Up(up) => verbs::wait(up.run()),
        Verb::Down(down) => verbs::wait(down.run()),
        Verb::Server(server) => server.run(),
        Verb::Worker(worker) => worker.run(),
        Verb::Token(token) => verbs::wait(token.run()),
        Verb::Member(member) => verbs::wait(member.run()),
        Verb::Backup(backup) => verbs::wait(backup.run()),
        Verb::Restore(restore) => restore.run(),
        Verb::Key(key) => verbs::wait(key.run()),
        Verb::Push(push) => verbs::wait(push.run()),
        Verb::Image(image) => verbs::wait(image.run()),
        Verb::Demo(demo) => verbs::wait(demo.run()),
        Verb::Version => verbs::version::run(),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "shoal", &mut std::io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
