//! What the decisions owe, as properties over every pod and every order of happenings that the generator thinks of.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::actions::{PodAction, next_wake, pod_actions};
use super::observed::{Happening, Observed, ProbeKind, State};
use super::spec;
use super::status::{has_ended, pod_status};
use crate::resting::may_rest;

const HOST: &str = "127.0.1.1";
/// How long a token in a volume is good.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_secs(480);

/// One step of a pod's life as the generator tells it.
#[derive(Debug, Clone)]
enum Step {
    Succeed,
    Fail,
    Distrust,
    Exit(usize, i32),
    Unhealthy(usize),
    Ready(usize, bool),
    Hooked(usize, bool),
    Wait(i64),
    Wake,
    Delete,
    Restart,
    Debug,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Succeed),
        2 => Just(Step::Fail),
        1 => Just(Step::Distrust),
        3 => (0usize..4, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(c, code)| Step::Exit(c, code)),
        1 => (0usize..4).prop_map(Step::Unhealthy),
        2 => (0usize..4, any::<bool>()).prop_map(|(c, r)| Step::Ready(c, r)),
        2 => (0usize..4, prop::bool::weighted(0.8)).prop_map(|(c, done)| Step::Hooked(c, done)),
        2 => (0i64..700).prop_map(Step::Wait),
        3 => Just(Step::Wake),
        1 => Just(Step::Delete),
        1 => Just(Step::Restart),
        1 => Just(Step::Debug),
    ]
}

fn policy() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")]
}

/// A policy and a rule of a container's own.
fn restart_rules() -> impl Strategy<Value = Option<(&'static str, &'static str, i32)>> {
    prop::option::weighted(0.3, (policy(), prop_oneof![Just("In"), Just("NotIn")], 0i32..2))
}

fn pod_strategy() -> impl Strategy<Value = Pod> {
    (1usize..3, 0usize..3, policy(), any::<bool>(), any::<bool>(), prop::option::of(1i64..2_000), restart_rules()).prop_map(
        |(regular, init, policy, sidecar, probe, deadline, rules)| {
            let container = |name: String| json!({"name": name, "image": "hello:1"});
            let mut inits: Vec<_> = (0..init).map(|n| container(format!("i{n}"))).collect();
            if sidecar && let Some(first) = inits.first_mut() {
                first["restartPolicy"] = json!("Always");
            }
            let mut regulars: Vec<_> = (0..regular).map(|n| container(format!("c{n}"))).collect();
            if probe {
                regulars[0]["readinessProbe"] = json!({"httpGet": {"port": 80}});
                regulars[0]["lifecycle"] = json!({"postStart": {"httpGet": {"port": 80}}});
            }
            if let Some((own, operator, code)) = rules {
                regulars[0]["restartPolicy"] = json!(own);
                regulars[0]["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [code]}}]);
                if let Some(last) = inits.last_mut().filter(|init| init["restartPolicy"].is_null()) {
                    last["restartPolicy"] = json!(if own == "Always" { "OnFailure" } else { own });
                }
            }
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
                "restartPolicy": policy, "initContainers": inits, "containers": regulars, "activeDeadlineSeconds": deadline}}))
            .expect("a pod")
        },
    )
}

/// A pod and the world that carries its actions out.
struct Life {
    pod: Pod,
    observed: Observed,
    now: Timestamp,
    pending: Vec<PodAction>,
    runs: u32,
    is_finished: bool,
}

impl Life {
    fn new(pod: Pod) -> Life {
        let now = Timestamp::from_second(1_800_000_000).expect("time");
        let observed = Observed::new(&pod, "10.64.0.2".parse().expect("ip"), None, now);
        Life { pod, observed, now, pending: Vec::new(), runs: 0, is_finished: false }
    }

    /// Decides and begins; afterwards there must be nothing more to decide.
    fn decide(&mut self) {
        for action in pod_actions(&self.pod, &self.observed, self.now) {
            self.check(&action);
            self.observed.begin(&action, self.now);
            self.is_finished |= action == PodAction::Finish;
            self.pending.push(action);
        }
        let again: Vec<PodAction> = pod_actions(&self.pod, &self.observed, self.now);
        let more = again
            .into_iter()
            .filter(|a| *a != PodAction::Finish && !matches!(self.pending.last(), Some(PodAction::Doom(_))));
        assert_eq!(more.collect::<Vec<_>>(), [], "after its own actions there is nothing to do");
    }

    fn check(&self, action: &PodAction) {
        match action {
            PodAction::Start { container } => {
                assert!(
                    !spec::is_deleted(&self.pod) && self.observed.doom.is_none(),
                    "nothing starts in a pod that goes"
                );
                assert!(!has_ended(&self.pod, &self.observed), "a finished pod stays finished");
                let index = spec::init_containers(&self.pod).iter().position(|c| &c.name == container);
                for before in
                    spec::init_containers(&self.pod).iter().take(index.unwrap_or(0)).filter(|c| !spec::is_sidecar(c))
                {
                    assert!(
                        matches!(self.observed.containers[&before.name].state, State::Ended(ref end) if end.exit_code == 0)
                    );
                }
                if let State::Ended(end) = &self.observed.containers[container].state {
                    let definition = spec::container(&self.pod, container).expect("container");
                    assert!(spec::restarts_after(&self.pod, &definition, end.exit_code), "the restart policy holds");
                }
            }
            PodAction::Finish => assert!(self.observed.is_quiet(), "a pod is gone only when nothing of it runs"),
            _ => {}
        }
    }

    fn note(&mut self, happening: Happening) {
        self.observed.note(&self.pod, happening, self.now);
    }

    /// The volumes of these pods hold a token, as far as anybody knows.
    fn note_mounted(&mut self) {
        let renew_at = Some(self.now + TOKEN_LIFE);
        self.note(Happening::Mounted { renew_at });
    }

    fn complete(&mut self, succeed: bool) {
        if self.pending.is_empty() {
            return;
        }
        let failed = || "no".to_owned();
        match self.pending.remove(0) {
            PodAction::Mount if succeed => self.note_mounted(),
            PodAction::Renew => self.note_mounted(),
            PodAction::Mount => self.note(Happening::MountFailed(failed())),
            PodAction::Pull { container } if succeed => {
                self.note(Happening::Pulled { container, image_id: "hello@sha256:1".into() })
            }
            PodAction::Pull { container } => {
                self.note(Happening::PullFailed { container, reason: "ErrImagePull".into(), message: failed() })
            }
            PodAction::Start { container } if succeed => {
                self.runs += 1;
                self.note(Happening::Started { container, id: self.runs.to_string() });
            }
            PodAction::Start { container } => self.note(Happening::Misconfigured { container, message: failed() }),
            // A container that does not care to stop is killed later; a kill always succeeds.
            PodAction::Stop { container, .. } if succeed => self.end(&container, 0),
            PodAction::Kill { container } => self.end(&container, 137),
            PodAction::Stop { .. } | PodAction::Doom(_) | PodAction::Finish => {}
        }
    }

    /// What waits first is a start, of an image that the policy does not trust any more.
    fn distrust(&mut self) {
        if let Some(PodAction::Start { container }) = self.pending.first().cloned() {
            self.pending.remove(0);
            self.note(Happening::Unverified { container: container.clone() });
            self.decide();
            let again = PodAction::Start { container };
            assert!(!self.pending.contains(&again), "nothing starts before it is verified");
        }
    }

    fn end(&mut self, container: &str, exit_code: i32) {
        if let State::Running(running) = &self.observed.containers[container].state {
            let id = running.id.clone();
            let reason = if exit_code == 0 { "Completed" } else { "Error" }.to_owned();
            self.note(Happening::Ended { container: container.to_owned(), id, exit_code, reason, message: None });
        }
    }

    fn probe(&mut self, index: usize, kind: ProbeKind, result: Result<(), String>) {
        let names: Vec<String> = self.observed.containers.keys().cloned().collect();
        let container = names[index % names.len()].clone();
        if let State::Running(running) = &self.observed.containers[&container].state {
            let id = running.id.clone();
            self.note(Happening::Probed { container, id, kind, result });
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Succeed => self.complete(true),
            Step::Fail => self.complete(false),
            Step::Distrust => self.distrust(),
            Step::Exit(index, code) => {
                let names: Vec<String> = self.observed.containers.keys().cloned().collect();
                self.end(&names[index % names.len()].clone(), *code);
            }
            Step::Unhealthy(index) => self.probe(*index, ProbeKind::Liveness, Err("no".into())),
            Step::Ready(index, ready) => {
                self.probe(*index, ProbeKind::Readiness, if *ready { Ok(()) } else { Err("no".into()) })
            }
            Step::Hooked(index, done) => {
                let names: Vec<String> = self.observed.containers.keys().cloned().collect();
                let container = names[index % names.len()].clone();
                if let State::Running(running) = &self.observed.containers[&container].state
                    && running.is_starting_up
                {
                    let (id, result) = (running.id.clone(), if *done { Ok(()) } else { Err("no".into()) });
                    self.note(Happening::PostStarted { container, id, result });
                }
            }
            Step::Wait(seconds) => self.now += SignedDuration::from_secs(*seconds),
            Step::Wake => self.now = next_wake(&self.pod, &self.observed, self.now).unwrap_or(self.now),
            Step::Delete => self.pod.metadata.deletion_timestamp = Some(Time(self.now)),
            Step::Debug => {
                let more = self.pod.spec.get_or_insert_default().ephemeral_containers.get_or_insert_default();
                let container = json!({"name": format!("e{}", more.len()), "image": "toolbox:1"});
                more.push(serde_json::from_value(container).expect("a container"));
                self.observed.meet(&self.pod);
            }
            Step::Restart => {
                self.observed = std::mem::take(&mut self.observed).after_restart(self.now);
                self.pending.clear();
            }
        }
    }

    fn check_status(&mut self) {
        let status = pod_status(&self.pod, &self.observed, HOST, self.now);
        let conditions = status.conditions.clone().unwrap_or_default();
        let condition = |name: &str| conditions.iter().find(|c| c.type_ == name).map(|c| c.status.clone());
        assert_eq!(
            status.container_statuses.is_none(),
            self.observed.refusal.is_some(),
            "who never runs has no containers"
        );
        let statuses = status.container_statuses.clone().unwrap_or_default();
        let all_ready = statuses.iter().all(|s| s.ready);
        for (name, seen) in &self.observed.containers {
            if let State::Running(running) = &seen.state
                && running.is_starting_up
            {
                let is_ready = statuses.iter().any(|status| status.name == *name && status.ready);
                assert!(!is_ready && !running.is_started, "{name} is ready before its hook is done");
            }
        }
        let sidecars_ready = status
            .init_container_statuses
            .iter()
            .flatten()
            .all(|s| s.ready || !spec::container(&self.pod, &s.name).is_some_and(|c| spec::is_sidecar(&c)));
        assert_eq!(condition("Ready"), condition("ContainersReady"));
        if condition("Ready").as_deref() == Some("True") {
            assert!(all_ready && sidecars_ready && status.phase.as_deref() == Some("Running"), "{status:?}");
        }
        let ephemeral = status.ephemeral_container_statuses.iter().flatten();
        assert!(ephemeral.clone().all(|status| status.restart_count == 0), "an ephemeral container runs once");
        for container in statuses.iter().chain(ephemeral).chain(status.init_container_statuses.iter().flatten()) {
            let state = container.state.as_ref().expect("state");
            let kinds = [state.waiting.is_some(), state.running.is_some(), state.terminated.is_some()];
            assert_eq!(kinds.into_iter().filter(|k| *k).count(), 1, "a container is in one state");
        }
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) && self.observed.doom.is_none() {
            assert!(
                self.observed.is_quiet()
                    || self.pending.iter().any(|a| matches!(a, PodAction::Start { .. } | PodAction::Stop { .. }))
                    || init_failed(self)
            );
        }
        self.pod.status = Some(status.clone());
        let later = pod_status(&self.pod, &self.observed, HOST, self.now + SignedDuration::from_secs(5));
        assert_eq!(status, later, "a status does not change by itself");
    }
}

/// An init container that failed for good while a sidecar still runs.
fn init_failed(life: &Life) -> bool {
    spec::init_containers(&life.pod)
        .iter()
        .any(|c| matches!(&life.observed.containers[&c.name].state, State::Ended(end) if end.exit_code != 0))
        || life.observed.containers.values().any(|c| matches!(c.state, State::Running(_)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_decisions_hold(pod in pod_strategy(), steps in prop::collection::vec(step(), 0..60)) {
        let mut life = Life::new(pod);
        for step in &steps {
            life.decide();
            if life.is_finished {
                break;
            }
            life.check_status();
            life.take(step);
        }
    }

    #[test]
    fn a_deleted_pod_always_comes_to_its_end(pod in pod_strategy(), steps in prop::collection::vec(step(), 0..40)) {
        let mut life = Life::new(pod);
        for step in &steps {
            life.decide();
            life.take(step);
        }
        life.take(&Step::Delete);
        for _ in 0..60 {
            life.decide();
            if life.is_finished {
                break;
            }
            while !life.pending.is_empty() {
                // Nothing stops of its own will: the grace period must do it.
                let succeed = !matches!(life.pending[0], PodAction::Stop { .. });
                life.complete(succeed);
            }
            life.take(&Step::Wake);
        }
        prop_assert!(life.is_finished);
    }

    #[test]
    fn a_pod_that_nothing_hinders_becomes_ready(pod in pod_strategy()) {
        let mut life = Life::new(pod);
        for _ in 0..30 {
            life.decide();
            while !life.pending.is_empty() {
                life.complete(true);
            }
            for container in spec::init_containers(&life.pod.clone()).iter().filter(|c| !spec::is_sidecar(c)) {
                life.end(&container.name, 0);
            }
            for index in 0..4 {
                life.take(&Step::Hooked(index, true));
                life.take(&Step::Ready(index, true));
            }
        }
        let status = pod_status(&life.pod, &life.observed, HOST, life.now);
        prop_assert!(status.conditions.unwrap_or_default().iter().all(|c| c.status == "True"));
    }

    #[test]
    fn a_token_is_renewed_as_long_as_its_pod_lives(pod in pod_strategy(), waits in prop::collection::vec(1i64..900, 1..10)) {
        let mut life = Life::new(pod);
        // A deadline would end the pod and its tokens with it.
        life.pod.spec.as_mut().expect("it has one").active_deadline_seconds = None;
        life.decide();
        while !life.pending.is_empty() {
            life.complete(true);
        }
        for wait in waits {
            let due = life.observed.renew_at.expect("there is a token");
            let wake = next_wake(&life.pod, &life.observed, life.now).expect("something is to come");
            prop_assert!(has_ended(&life.pod, &life.observed) || wake <= due);
            life.take(&Step::Wait(wait));
            life.decide();
            let is_renewing = life.pending.contains(&PodAction::Renew);
            prop_assert_eq!(is_renewing, life.now >= due && !has_ended(&life.pod, &life.observed));
            while !life.pending.is_empty() {
                life.complete(true);
            }
            if has_ended(&life.pod, &life.observed) {
                return Ok(());
            }
        }
    }

    #[test]
    fn an_observation_survives_the_disk(pod in pod_strategy(), steps in prop::collection::vec(step(), 0..40)) {
        let mut life = Life::new(pod);
        for step in &steps {
            life.decide();
            life.take(step);
        }
        let bytes = serde_json::to_vec(&life.observed).expect("written");
        let read: Observed = serde_json::from_slice(&bytes).expect("read");
        prop_assert_eq!(read.after_restart(life.now), life.observed.after_restart(life.now));
    }

    #[test]
    fn a_pod_that_may_rest_has_nothing_to_do_and_wakes_as_it_was(pod in pod_strategy(), steps in prop::collection::vec(step(), 0..60)) {
        let mut life = Life::new(pod);
        for step in &steps {
            life.decide();
            // Every pod here has a token, and would be awake for that alone.
            let observed = Observed { renew_at: None, ..life.observed.clone() };
            if may_rest(&life.pod, &observed) && next_wake(&life.pod, &observed, life.now).is_none() {
                prop_assert_eq!(pod_actions(&life.pod, &observed, life.now), []);
                let bytes = serde_json::to_vec(&observed).expect("written");
                let mut read: Observed = serde_json::from_slice(&bytes).expect("read");
                read.settle();
                prop_assert_eq!(read, observed);
            }
            life.take(step);
        }
    }
}
