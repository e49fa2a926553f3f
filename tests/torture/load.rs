//! Writers: each has objects of its own, and writes down what it was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use rand::RngExt;
use shoal_client::{Client, ClientError, DeleteOptions};

/// How long a writer waits for an answer before it counts the outcome as unknown.
const PATIENCE: Duration = Duration::from_secs(4);

/// What an object may be now: its value, or `None` if it is not there.
pub type State = Option<String>;

/// What one writer knows.
#[derive(Default)]
pub struct History {
    /// What each object is; more than one state after a write whose outcome is unknown. Such an object is left alone.
    pub objects: BTreeMap<String, Vec<State>>,
    /// The revisions of the acknowledged writes, in their order.
    pub revisions: Vec<u64>,
    /// Reads that did not see a write acknowledged before them.
    pub stale: Vec<String>,
    deleted: usize,
}

impl History {
    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.revisions.len() + self.deleted
    }

    /// How many may or may not have happened.
    pub fn unknown(&self) -> usize {
        self.objects.values().filter(|states| states.len() > 1).count()
    }
}

/// Creates, changes and deletes until `end`, each time through any of the servers.
pub async fn write(number: usize, clients: Vec<Client>, end: Instant) -> History {
    let mut history = History::default();
    let mut known: Vec<ConfigMap> = Vec::new();
    let mut next = 0;
    while Instant::now() < end {
        let (client, reader) = (any(&clients), any(&clients));
        let turn = rand::rng().random_range(0..8);
        let outcome = match turn {
            0 if !known.is_empty() => {
                let object = known.swap_remove(rand::rng().random_range(0..known.len()));
                delete(client, object, &mut history).await
            }
            1 | 2 if !known.is_empty() => {
                let object = known.swap_remove(rand::rng().random_range(0..known.len()));
                change(client, object, next, &mut history, &mut known).await
            }
            _ => create(client, reader, &format!("torture-{number}-{next}"), &mut history, &mut known).await,
        };
        next += 1;
        if outcome.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    history
}

/// A last write, after which all is quiet; answers its revision.
pub async fn last(client: &Client) -> anyhow::Result<u64> {
    let created = client.create(&config_map("the-last")).await?;
    Ok(created.metadata.resource_version.unwrap_or_default().parse()?)
}

fn config_map(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.namespace = Some("default".to_owned());
    object.data = Some([("value".to_owned(), "0".to_owned())].into());
    object
}

fn any(clients: &[Client]) -> &Client {
    &clients[rand::rng().random_range(0..clients.len())]
}

/// What was answered in time.
async fn answer<T>(request: impl Future<Output = Result<T, ClientError>>) -> Option<Result<T, ClientError>> {
    tokio::time::timeout(PATIENCE, request).await.ok()
}

async fn create(
    client: &Client,
    reader: &Client,
    name: &str,
    history: &mut History,
    known: &mut Vec<ConfigMap>,
) -> Option<()> {
    let object = config_map(name);
    let Some(Ok(created)) = answer(client.create(&object)).await else {
        history.objects.insert(name.to_owned(), vec![None, Some("0".to_owned())]);
        return None;
    };
    history.objects.insert(name.to_owned(), vec![Some("0".to_owned())]);
    acknowledge(created, history, known);
    if let Some(Err(error)) = answer(reader.get::<ConfigMap>("default", name)).await
        && error.is_not_found()
    {
        history.stale.push(format!("{name} was acknowledged, and then not found"));
    }
    Some(())
}

async fn change(
    client: &Client,
    mut object: ConfigMap,
    value: usize,
    history: &mut History,
    known: &mut Vec<ConfigMap>,
) -> Option<()> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let value = value.to_string();
    object.data = Some([("value".to_owned(), value.clone())].into());
    // Conditional on the version that it had: one that arrives late finds another and does nothing.
    let Some(Ok(changed)) = answer(client.replace(&object)).await else {
        history.objects.entry(name).or_default().push(Some(value));
        return None;
    };
    history.objects.insert(name, vec![Some(value)]);
    acknowledge(changed, history, known);
    Some(())
}

async fn delete(client: &Client, object: ConfigMap, history: &mut History) -> Option<()> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let options =
        DeleteOptions { resource_version: object.metadata.resource_version.clone(), ..DeleteOptions::default() };
    let Some(Ok(_)) = answer(client.delete::<ConfigMap>("default", &name, &options)).await else {
        history.objects.entry(name).or_default().push(None);
        return None;
    };
    history.objects.insert(name, vec![None]);
    history.deleted += 1;
    Some(())
}

fn acknowledge(object: ConfigMap, history: &mut History, known: &mut Vec<ConfigMap>) {
    let revision = object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok());
    history.revisions.push(revision.unwrap_or_default());
    known.push(object);
}
