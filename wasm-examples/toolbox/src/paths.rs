//! The directories that the container has. The root is none of them: it is made of their names.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wasip2::cli::environment::initial_cwd;
use wasip2::filesystem::preopens::get_directories;

thread_local! {
    static DIRECTORY: RefCell<PathBuf> = RefCell::new(begin());
}

/// Where the container starts its programs.
fn begin() -> PathBuf {
    clean(PathBuf::from("/"), &initial_cwd().unwrap_or_default())
}

/// The directory from which names are meant.
pub fn directory() -> PathBuf {
    DIRECTORY.with_borrow(Clone::clone)
}

/// Names are meant from another directory from now on.
pub fn change(to: PathBuf) {
    DIRECTORY.set(to);
}

/// A path from the root, without dots.
pub fn absolute(path: &str) -> PathBuf {
    clean(directory(), path)
}

fn clean(from: PathBuf, path: &str) -> PathBuf {
    let mut clean = if path.starts_with('/') { PathBuf::from("/") } else { from };
    for part in Path::new(path).components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Whether a path leads to directories of the container without being in one: the root, and what lies between.
pub fn is_above(path: &Path) -> bool {
    !inside(path) && (path == Path::new("/") || mounts().iter().any(|mount| mount.starts_with(path)))
}

/// What lies directly below such a path.
pub fn below(path: &Path) -> BTreeSet<String> {
    let next = |mount: &PathBuf| {
        let first = mount.strip_prefix(path).ok()?.components().next()?;
        Some(first.as_os_str().to_string_lossy().into_owned())
    };
    mounts().iter().filter_map(next).collect()
}

fn inside(path: &Path) -> bool {
    mounts().iter().any(|mount| path.starts_with(mount))
}

fn mounts() -> Vec<PathBuf> {
    get_directories().into_iter().map(|(_, path)| clean(PathBuf::from("/"), &path)).collect()
}
