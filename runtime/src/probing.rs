//! Asking a container's probes and telling its worker when one changes its mind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use shoal_link::tasks::spawn_connection;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::container::Run;
use crate::context::Context;
use crate::exec;
use crate::pod::observed::ProbeKind;
use crate::pod::probe::{Timing, Verdict};
use crate::pod::{Happening, spec};
use crate::worker::Message;
use crate::{pod_grpc, pod_http};

/// Bytes of a failing answer that the event shows.
const SHOWN_BODY_BYTES: usize = 256;

/// Starts the probes of a container that just started; they end with the run.
pub fn start(context: &Arc<Context>, pod: &Arc<Pod>, container: &str, run: &Run, messages: &mpsc::Sender<Message>) {
    let Some(definition) = spec::container(pod, container) else { return };
    let Some(address) = run.pod_address else { return };
    let has_startup = definition.startup_probe.is_some();
    let (started, is_started) = watch::channel(!has_startup);
    let started = Arc::new(started);
    let kinds = [
        (ProbeKind::Startup, &definition.startup_probe),
        (ProbeKind::Readiness, &definition.readiness_probe),
        (ProbeKind::Liveness, &definition.liveness_probe),
    ];
    for (kind, probe) in kinds {
        let Some(probe) = probe else { continue };
        let prober = Prober {
            context: Arc::clone(context),
            pod: Arc::clone(pod),
            container: definition.as_ref().clone(),
            id: run.id.clone(),
            probe: probe.clone(),
            kind,
            address,
            messages: messages.clone(),
            started: Arc::clone(&started),
        };
        let (stop, is_started) = (run.stop_probes.clone(), is_started.clone());
        spawn_connection("probe", prober.work(is_started, stop));
    }
}

struct Prober {
    context: Arc<Context>,
    pod: Arc<Pod>,
    container: Container,
    id: String,
    probe: Probe,
    kind: ProbeKind,
    address: std::net::IpAddr,
    messages: mpsc::Sender<Message>,
    started: Arc<watch::Sender<bool>>,
}

impl Prober {
    async fn work(self, is_started: watch::Receiver<bool>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.ask_for_ever(is_started) => {}
        }
    }

    async fn ask_for_ever(&self, mut is_started: watch::Receiver<bool>) {
        let timing = Timing::of(&self.probe);
        if self.kind != ProbeKind::Startup && is_started.wait_for(|started| *started).await.is_err() {
            return;
        }
        tokio::time::sleep(timing.initial_delay).await;
        let mut verdict = Verdict::default();
        let mut said = None;
        let mut ticks = tokio::time::interval(timing.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result = self.ask(timing.timeout).await;
            let Some(success) = verdict.count(&timing, result.is_ok()) else { continue };
            let is_news = said != Some(success);
            said = Some(success);
            // Failures are said each time: each one is an event that is counted up.
            if (is_news || !success) && !self.say(result).await {
                return;
            }
            if self.kind == ProbeKind::Startup && success {
                self.started.send_replace(true);
                return;
            }
        }
    }

    async fn say(&self, result: Result<(), String>) -> bool {
        let happening =
            Happening::Probed { container: self.container.name.clone(), id: self.id.clone(), kind: self.kind, result };
        self.messages.send(Message::Happened(Box::new(happening))).await.is_ok()
    }

    async fn ask(&self, timeout: Duration) -> Result<(), String> {
        let attempt = async {
            if let Some(get) = &self.probe.http_get {
                return self.get(get).await;
            }
            if let Some(tcp) = &self.probe.tcp_socket {
                let address = pod_http::address(&self.container, self.address, &tcp.port)?;
                let is_open = self.context.network.local().target(address).is_some();
                return if is_open { Ok(()) } else { Err(format!("dial tcp {address}: connect: connection refused")) };
            }
            if let Some(exec) = &self.probe.exec {
                return self.run(exec.command.as_deref().unwrap_or_default()).await;
            }
            if let Some(grpc) = &self.probe.grpc {
                let port = u16::try_from(grpc.port).map_err(|_| format!("grpc.port: {} is no port", grpc.port))?;
                let address = SocketAddr::new(self.address, port);
                return pod_grpc::check(&self.context.network, address, grpc.service.as_deref().unwrap_or_default())
                    .await;
            }
            Ok(())
        };
        tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
    }

    /// Exit code 0 is success; what the command prints says why it is none.
    async fn run(&self, command: &[String]) -> Result<(), String> {
        let ended = exec::run(&self.context, &self.pod, &self.container.name, command).await?;
        if ended.code == 0 { Ok(()) } else { Err(ended.output) }
    }

    /// A status from 200 to 399 is success (Kubernetes, "Configure Probes").
    async fn get(&self, get: &HTTPGetAction) -> Result<(), String> {
        let agent = "kube-probe/1.35";
        let response = pod_http::get(&self.context.network, &self.container, self.address, get, agent).await?;
        let status = response.status();
        if (StatusCode::OK..StatusCode::BAD_REQUEST).contains(&status) {
            return Ok(());
        }
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BODY_BYTES)]).into_owned();
        tracing::debug!(container = self.container.name, %status, shown, "a probe failed");
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}
