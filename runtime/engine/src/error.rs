//! Why a module cannot be loaded or started.

/// A module cannot be loaded; loading it again will not help, unless it says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The bytes are no WebAssembly at all.
    #[error("it is not a WebAssembly module or component: it begins with {0}")]
    NotWasm(String),
    /// It is WebAssembly, but not valid, or uses a feature that we do not have.
    #[error("it cannot be compiled: {0}")]
    Compile(String),
    /// It wants something that no guest gets.
    #[error("it needs an import that is not available here: {0}")]
    Import(String),
    /// It exports nothing that can be run.
    #[error(
        "it can be linked but not run: it exports neither wasi:http/incoming-handler, nor wasi:http/handler, nor wasi:cli/run, nor _start"
    )]
    Library,
    /// The machine failed: the disk is full, or a file cannot be read. It may work later.
    #[error("failed to {doing}: {reason}")]
    Machine {
        /// What was tried.
        doing: String,
        /// What the system said.
        reason: String,
    },
}

/// A guest cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A granted directory cannot be opened.
    #[error("failed to open the directory {host} for {guest}: {reason}")]
    Directory {
        /// Where it should be on the machine.
        host: String,
        /// Where the guest would see it.
        guest: String,
        /// What the system said.
        reason: String,
    },
    /// Several requests at once are granted to an instance that cannot have them.
    #[error("an instance of a function of WASI 0.2 answers one request at a time")]
    OneAtATime,
    /// The module is of the other kind.
    #[error("the module is {0}")]
    Kind(&'static str),
}
