//! The tasks that run for as long as the process does. If one of them ends, nothing does its work any more: the process has to end too.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// The tasks of the process, with their names. Dropping it ends them.
#[derive(Debug, Default)]
pub struct LongTasks {
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
}

/// The error for a task that has ended.
#[derive(Debug, thiserror::Error)]
#[error("the task \"{name}\" has {reason}")]
pub struct TaskEnded {
    name: String,
    reason: &'static str,
}

impl LongTasks {
    /// Starts a task that must not end. Call it inside the tokio runtime.
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// Waits until one of the tasks ends. Waits for ever if there is none. Cancel safe.
    pub async fn first_ended(&mut self) -> TaskEnded {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => self.ended(id, "ended by itself"),
            // The panic hook has logged the place and the message.
            Some(Err(error)) => self.ended(error.id(), reason(&error)),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, id: Id, reason: &'static str) -> TaskEnded {
        TaskEnded { name: self.names.remove(&id).unwrap_or_default(), reason }
    }
}

fn reason(error: &JoinError) -> &'static str {
    if error.is_panic() { "panicked" } else { "been cancelled" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_first_end_is_told_with_its_name() {
        let mut tasks = LongTasks::default();
        tasks.spawn("a", std::future::pending());
        let none = tokio::time::timeout(Duration::from_millis(20), tasks.first_ended()).await;
        assert!(none.is_err(), "{none:?}");
        tasks.spawn("b", async { panic!("a test") });
        assert_eq!(tasks.first_ended().await.to_string(), r#"the task "b" has panicked"#);
        tasks.spawn("c", async {});
        assert_eq!(tasks.first_ended().await.to_string(), r#"the task "c" has ended by itself"#);
    }
}
