//! A container's lifecycle hooks: what is asked of it, or waited for, right after its start and before its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::exec;
use crate::pod::{Happening, spec};
use crate::pod_http;
use crate::worker::Message;

/// One hook of one container of a pod.
pub struct Hook {
    context: Arc<Context>,
    pod: Arc<Pod>,
    container: Container,
    address: Option<IpAddr>,
    handler: LifecycleHandler,
}

impl Hook {
    /// What is to be done right after the container's start.
    pub fn post_start(
        context: &Arc<Context>,
        pod: &Arc<Pod>,
        container: &str,
        address: Option<IpAddr>,
    ) -> Option<Hook> {
        let container = spec::container(pod, container)?;
        let handler = spec::post_start(&container)?.clone();
        let (context, container) = (Arc::clone(context), container.into_owned());
        Some(Hook { context, pod: Arc::clone(pod), container, address, handler })
    }

    /// What is to be done before the container is asked to stop.
    pub fn pre_stop(context: &Arc<Context>, pod: &Arc<Pod>, container: &str, address: Option<IpAddr>) -> Option<Hook> {
        let container = spec::container(pod, container)?;
        let handler = container.lifecycle.as_ref()?.pre_stop.clone()?;
        let (context, container) = (Arc::clone(context), container.into_owned());
        Some(Hook { context, pod: Arc::clone(pod), container, address, handler })
    }

    /// Does it and tells the worker, unless the run `id` ends before.
    pub async fn tell(self, id: String, over: CancellationToken, messages: mpsc::Sender<Message>) {
        let result = tokio::select! {
            () = over.cancelled() => return,
            result = self.run() => result,
        };
        let happening = Happening::PostStarted { container: self.container.name.clone(), id, result };
        let _ = messages.send(Message::Happened(Box::new(happening))).await;
    }

    /// Does it, within `deadline`.
    ///
    /// # Errors
    /// A sentence.
    pub async fn run_within(&self, deadline: Duration) -> Result<(), String> {
        let late = || format!("it was not done within {deadline:?}");
        tokio::time::timeout(deadline, self.run()).await.unwrap_or_else(|_| Err(late()))
    }

    /// Any answer to a request counts, as it does for the kubelet: only to get none is a failure.
    async fn run(&self) -> Result<(), String> {
        if let Some(sleep) = &self.handler.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        }
        if let Some(get) = &self.handler.http_get {
            let address = self.address.ok_or("the pod has no address")?;
            pod_http::get(&self.context.network, &self.container, address, get, "kube-lifecycle/1.35").await?;
        }
        if let Some(action) = &self.handler.exec {
            let command = action.command.as_deref().unwrap_or_default();
            let ended = exec::run(&self.context, &self.pod, &self.container.name, command).await?;
            if ended.code != 0 {
                return Err(format!("command {command:?} exited with {}: {}", ended.code, ended.output));
            }
        }
        Ok(())
    }
}
