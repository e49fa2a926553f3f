//! Which program runs a command.

/// The commands of the toolbox; `wasm-examples/toolbox` has them.
pub const TOOLS: [&str; 24] = [
    "[", "cat", "cp", "date", "echo", "env", "false", "head", "ls", "mkdir", "mv", "printenv", "pwd", "rm", "rmdir",
    "sh", "sleep", "stat", "tail", "tar", "test", "touch", "true", "wc",
];

/// Where people look for the toolbox's commands.
const FOLDERS: [&str; 4] = ["/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/"];

/// What runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The toolbox.
    Toolbox,
    /// The container's own program, with the command as its arguments.
    Own,
}

/// Chooses by the command's first word; `runs_commands` says whether the container's program is a process. A name of the toolbox is the
/// toolbox's, so that `tar` is there in every container; any other, and a path, is the container's own.
///
/// # Errors
/// A sentence that says what there is.
pub fn choose(command: &[String], runs_commands: bool) -> Result<Choice, String> {
    let name = command.first().filter(|name| !name.is_empty()).ok_or("command: required")?;
    let plain = FOLDERS.iter().find_map(|folder| name.strip_prefix(folder)).unwrap_or(name);
    if TOOLS.contains(&plain) {
        return Ok(Choice::Toolbox);
    }
    if runs_commands {
        return Ok(Choice::Own);
    }
    Err(format!(
        "exec: {name:?}: executable file not found: the container's program is an HTTP function, which runs no commands; there are {}",
        TOOLS.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(command: &str, runs_commands: bool) -> Result<Choice, String> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        choose(&words, runs_commands)
    }

    #[test]
    fn a_tool_is_found_by_its_name_and_in_the_usual_folders() {
        for command in ["tar cf - x", "/bin/sh -c ls", "/usr/bin/env"] {
            assert_eq!(chosen(command, true), Ok(Choice::Toolbox), "{command}");
            assert_eq!(chosen(command, false), Ok(Choice::Toolbox), "{command}");
        }
    }

    #[test]
    fn anything_else_is_the_containers_own_if_it_runs_commands() {
        for command in ["/app/tar", "server --check", "/"] {
            assert_eq!(chosen(command, true), Ok(Choice::Own), "{command}");
            assert!(chosen(command, false).is_err_and(|message| message.contains("executable file not found")));
        }
        assert_eq!(chosen("", true), Err("command: required".to_owned()));
    }
}
