//! Which pods answer for a Service: its EndpointSlice, and its Endpoints for older readers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shoal_scheduler::selects;

use crate::action::{Action, controller_reference, controller_uid};
use crate::pods::{is_over, is_ready, node};
use crate::replica_set::letters;

/// The label that names a slice's Service.
pub const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The most endpoints of one slice (Kubernetes: `--max-endpoints-per-slice`).
const SLICE: usize = 1000;

/// What `service` needs, given its namespace's pods and slices, and the Endpoints of its name.
pub fn reconcile(
    service: &Service,
    pods: &[&Pod],
    slices: &[&EndpointSlice],
    endpoints: Option<&Endpoints>,
) -> Vec<Action> {
    let Some(selector) =
        service.spec.as_ref().and_then(|spec| spec.selector.clone()).filter(|selector| !selector.is_empty())
    else {
        return Vec::new();
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let selector = LabelSelector { match_labels: Some(selector), match_expressions: None };
    let mut chosen: Vec<&Pod> =
        pods.iter().copied().filter(|pod| selects(&selector, pod.metadata.labels.as_ref())).collect();
    chosen.retain(|pod| !is_over(pod) && address(pod).is_some());
    chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut actions = slice_actions(service, &chosen, slices);
    actions.extend(old_endpoints(service, &chosen, endpoints));
    actions
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|address| !address.is_empty())
}

/// The number of a Service's port on `pod`; named ports are looked up in it.
fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(if *number == 0 { port.port } else { *number }),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let ports = pod.spec.as_ref()?.containers.iter().flat_map(|container| container.ports.iter().flatten());
            let mut named = ports.filter(|port| port.name.as_deref() == Some(name.as_str()));
            named.find(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol).map(|port| port.container_port)
        }
    }
}

/// Pods by the numbers that the Service's ports have on them.
fn groups<'a>(service: &Service, pods: &[&'a Pod]) -> BTreeMap<Vec<Option<i32>>, Vec<&'a Pod>> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut groups: BTreeMap<_, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        let numbers: Vec<Option<i32>> = ports.iter().map(|port| target(pod, port)).collect();
        if ports.is_empty() || numbers.iter().any(Option::is_some) {
            groups.entry(numbers).or_default().push(pod);
        }
    }
    groups
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or_default()
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn endpoint(service: &Service, pod: &Pod) -> Endpoint {
    let is_terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let ready = (serving && !is_terminating) || publishes_unready(service);
    Endpoint {
        addresses: address(pod).map(str::to_owned).into_iter().collect(),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(is_terminating),
        }),
        node_name: Some(node(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(reference(pod)),
        hostname: hostname(service, pod),
        ..Endpoint::default()
    }
}

/// The name that a pod has within the Service that its `subdomain` names (Kubernetes, "DNS for Services and Pods").
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    let is_of_service = spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    is_of_service.then_some(hostname)
}

fn slice_actions(service: &Service, pods: &[&Pod], slices: &[&EndpointSlice]) -> Vec<Action> {
    let uid = service.metadata.uid.as_deref();
    let mut own: Vec<&EndpointSlice> =
        slices.iter().copied().filter(|slice| controller_uid(&slice.metadata) == uid).collect();
    own.retain(|slice| slice.metadata.deletion_timestamp.is_none());
    own.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut wanted = Vec::new();
    for (numbers, members) in groups(service, pods) {
        for members in members.chunks(SLICE) {
            let endpoints: Vec<Endpoint> = members.iter().map(|pod| endpoint(service, pod)).collect();
            wanted.push((new_ports(service, &numbers), endpoints));
        }
    }
    if wanted.is_empty() {
        wanted.push((Vec::new(), Vec::new()));
    }
    let mut actions = Vec::new();
    let mut present = own.into_iter();
    for (index, (ports, endpoints)) in wanted.into_iter().enumerate() {
        match present.next() {
            Some(slice) => {
                let mut next = slice.clone();
                next.endpoints = endpoints;
                next.ports = Some(ports).filter(|ports| !ports.is_empty());
                let before =
                    EndpointSlice { ports: slice.ports.clone().filter(|ports| !ports.is_empty()), ..slice.clone() };
                if next != before {
                    actions.push(Action::replace(&next));
                }
            }
            None => actions.push(Action::create(&new_slice(service, index, slices, ports, endpoints))),
        }
    }
    actions.extend(present.map(Action::delete));
    actions
}

fn new_slice(
    service: &Service,
    index: usize,
    slices: &[&EndpointSlice],
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let service_name = service.metadata.name.clone().unwrap_or_default();
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let is_free = |name: &String| !slices.iter().any(|slice| slice.metadata.name.as_ref() == Some(name));
    let mut names =
        (0u32..).map(|attempt| format!("{service_name}-{}", letters(&format!("{uid}/{index}/{attempt}"), 5)));
    let name = names.find(is_free);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), service_name.clone());
    labels.insert(MANAGED_BY.to_owned(), US.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            name,
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints,
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    }
}

fn new_ports(service: &Service, numbers: &[Option<i32>]) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let known = ports.iter().zip(numbers).filter_map(|(port, number)| number.map(|number| (port, number)));
    known
        .map(|(port, number)| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn old_endpoints(service: &Service, pods: &[&Pod], present: Option<&Endpoints>) -> Option<Action> {
    let mut subsets = Vec::new();
    for (numbers, members) in groups(service, pods) {
        let ports = new_ports(service, &numbers).into_iter().map(|port| OldPort {
            name: port.name.filter(|name| !name.is_empty()),
            port: port.port.unwrap_or_default(),
            protocol: port.protocol,
            app_protocol: port.app_protocol,
        });
        let address = |pod: &&Pod| EndpointAddress {
            ip: address(pod).unwrap_or_default().to_owned(),
            node_name: Some(node(pod).to_owned()).filter(|name| !name.is_empty()),
            target_ref: Some(reference(pod)),
            hostname: hostname(service, pod),
        };
        let living = members.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let (ready, unready): (Vec<&Pod>, Vec<&Pod>) =
            living.partition(|pod| is_ready(pod) || publishes_unready(service));
        let some = |pods: &[&Pod]| (!pods.is_empty()).then(|| pods.iter().map(address).collect::<Vec<_>>());
        if !ready.is_empty() || !unready.is_empty() {
            let (addresses, not_ready_addresses) = (some(&ready), some(&unready));
            subsets.push(EndpointSubset { addresses, not_ready_addresses, ports: Some(ports.collect()) });
        }
    }
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let Some(present) = present else {
        let metadata = ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: service.metadata.labels.clone(),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        };
        return Some(Action::create(&Endpoints { metadata, subsets }));
    };
    let mut next = Endpoints { subsets, ..present.clone() };
    if let Some(annotations) = &mut next.metadata.annotations {
        annotations.remove(LAST_CHANGE);
    }
    let before = present.subsets.clone().filter(|subsets| !subsets.is_empty());
    (next.subsets != before).then(|| Action::replace(&next))
}
