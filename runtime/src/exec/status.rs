//! How a command ended, as clients read it from the error channel.

use serde_json::{Value, json};

use crate::guests::Exit;

/// The `metav1.Status` of an exit.
pub fn of_exit(exit: &Exit) -> Value {
    if exit.code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    let message = match &exit.message {
        Some(message) => format!("command terminated with non-zero exit code: {message}"),
        None if exit.reason == "OOMKilled" => "command terminated with non-zero exit code: out of memory".to_owned(),
        None => format!("command terminated with non-zero exit code: exit status {}", exit.code),
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": exit.code.to_string()}]},
    })
}

/// The `metav1.Status` of a stream that ended as it should.
pub fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}
