//! `shoal image`: what is in the cluster's own registry.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use shoal_client::Client;
use shoal_images::{
    Description, Digest, Reference, Registry, Where, contents, describe, listed, module_in_layers, signature_tag,
};

use crate::kubeconfig::Target;
use crate::registry;

/// List, look into and remove the images in the cluster's registry.
///
/// `shoal push` brings one there. What no image names any more is removed from the servers within some hours.
#[derive(Args)]
#[command(after_help = "\
Examples:
  shoal image ls
  shoal image inspect hello:1
  shoal image rm hello:1")]
pub struct Image {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the repositories and their tags.
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a tag, or with a digest the image itself and all its tags.
    #[command(after_help = "Example:\n  shoal image rm hello@sha256:…")]
    Rm {
        /// Which one.
        #[arg(value_name = "NAME[:TAG|@DIGEST]")]
        name: String,
    },
    /// Show what an image is, what it needs and offers, and which signatures it carries (none is verified).
    Inspect {
        /// Which one.
        #[arg(value_name = "NAME[:TAG|@DIGEST]")]
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args)]
struct Output {
    /// In which form it is printed [default: for people].
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For programs.
    Json,
}

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Listed {
    repository: String,
    tag: String,
    digest: String,
    /// Of everything that it names.
    size: u64,
    kind: &'static str,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Inspected {
    name: String,
    digest: String,
    size: u64,
    kind: &'static str,
    module: Option<Module>,
    /// Why there is no module that can be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Whoever made them.
    signatures: Vec<Signature>,
}

/// A signature of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Signature {
    form: &'static str,
    digest: String,
}

/// The module of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Module {
    digest: String,
    size: usize,
    /// `component` or `core module`.
    form: &'static str,
    /// What a container of it is.
    role: &'static str,
    os: &'static str,
    target: Option<String>,
    exports: Vec<String>,
    imports: Vec<String>,
    producers: Vec<String>,
}

impl Image {
    /// Asks the registry.
    #[expect(clippy::print_stdout, reason = "what the verb is for")]
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.target.client()?;
        match self.verb {
            Verb::Ls { output } => {
                let listed = list(&client).await.context("failed to list the images")?;
                match output.output {
                    Some(Form::Json) => println!("{}", serde_json::to_string_pretty(&listed)?),
                    None => print!("{}", table(&listed)),
                }
            }
            Verb::Rm { name } => {
                let reference = reference(&name)?;
                remove(&client, &reference).await.with_context(|| format!("failed to remove {name}"))?;
                println!("{reference} removed");
            }
            Verb::Inspect { name, output } => {
                let reference = reference(&name)?;
                let found = inspect(&client, &reference).await.with_context(|| format!("failed to inspect {name}"))?;
                match output.output {
                    Some(Form::Json) => println!("{}", serde_json::to_string_pretty(&found)?),
                    None => print!("{}", text(&found)),
                }
            }
        }
        Ok(())
    }
}

fn reference(name: &str) -> anyhow::Result<Reference> {
    let reference = Reference::parse(name)?;
    anyhow::ensure!(
        reference.registry == Registry::Cluster,
        "{name:?} names another registry: this verb looks into the cluster's own, so leave the host out"
    );
    Ok(reference)
}

async fn list(client: &Client) -> anyhow::Result<Vec<Listed>> {
    #[derive(Deserialize)]
    struct Repositories {
        repositories: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Tags {
        tags: Vec<String>,
    }
    let mut listed = Vec::new();
    for repository in pages(client, "/v2/_catalog", |page: Repositories| page.repositories).await? {
        for tag in pages(client, &format!("/v2/{repository}/tags/list"), |page: Tags| page.tags).await? {
            // One that was removed in between is not there.
            let Some((digest, document)) = manifest(client, &repository, &tag).await? else { continue };
            let (size, kind) = contents(&document).map_or((0, "unknown"), |found| (found.size_bytes, found.kind));
            listed.push(Listed { repository: repository.clone(), tag, digest, size, kind });
        }
    }
    Ok(listed)
}

/// All rows of a listing that comes in pages; none if there is no such listing.
async fn pages<P: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    rows: impl Fn(P) -> Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    let mut next = Some(path.to_string());
    while let Some(path) = next {
        let Some(response) = registry::get(client, &path).await? else { break };
        let link = response.headers().get(http::header::LINK).and_then(|link| link.to_str().ok());
        next = link.and_then(|link| Some(link.strip_prefix('<')?.split_once('>')?.0.to_string()));
        all.extend(rows(serde_json::from_slice(response.body()).context("the registry's listing cannot be read")?));
    }
    Ok(all)
}

/// The digest and the document under a tag or digest.
async fn manifest(client: &Client, repository: &str, version: &str) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let response = registry::get(client, &format!("/v2/{repository}/manifests/{version}")).await?;
    Ok(response.map(|response| (Digest::of(response.body()).to_string(), response.into_body().to_vec())))
}

fn missing(reference: &Reference) -> anyhow::Error {
    anyhow::anyhow!("there is no {reference} in the cluster's registry: `shoal image ls` lists what there is")
}

async fn remove(client: &Client, reference: &Reference) -> anyhow::Result<()> {
    let path = format!("/v2/{}/manifests/{}", reference.repository, reference.version());
    let was_there = registry::delete(client, &path).await?;
    anyhow::ensure!(was_there, missing(reference));
    Ok(())
}

async fn inspect(client: &Client, reference: &Reference) -> anyhow::Result<Inspected> {
    let version = reference.version();
    let found = manifest(client, &reference.repository, &version).await?;
    let (digest, document) = found.ok_or_else(|| missing(reference))?;
    let outer = contents(&document).map_err(anyhow::Error::msg)?;
    let (document, place) = match outer.module {
        Where::Manifest(inner) => {
            let found = manifest(client, &reference.repository, &inner.to_string()).await?;
            let (_, document) = found.with_context(|| format!("the index names {inner}, which is not there"))?;
            let place = contents(&document).map_err(anyhow::Error::msg)?.module;
            (document, place)
        }
        place => (document, place),
    };
    let (module, problem) = match place {
        Where::Blob(digest) => (Some(module(&blob(client, reference, &digest).await?)?), None),
        Where::InLayers { config, layers } => {
            match module_of_container(client, reference, document, &config, layers).await? {
                Ok(wasm) => (Some(module(&wasm)?), None),
                Err(problem) => (None, Some(problem)),
            }
        }
        Where::Manifest(_) => (None, Some("the index leads to another index".to_string())),
        Where::Nowhere(problem) => (None, Some(problem)),
    };
    let signatures = signatures(client, &reference.repository, &digest).await?;
    let (name, size) = (reference.to_string(), outer.size_bytes);
    Ok(Inspected { name, digest, size, kind: outer.kind, module, problem, signatures })
}

/// The signatures of the image with this digest. None is verified: that takes a key.
async fn signatures(client: &Client, repository: &str, digest: &str) -> anyhow::Result<Vec<Signature>> {
    let tag = signature_tag(&Digest::parse(digest)?);
    let simple = manifest(client, repository, &tag).await?;
    let referrers = registry::get(client, &format!("/v2/{repository}/referrers/{digest}")).await?;
    let found = listed(
        simple.as_ref().map(|(_, document)| document.as_slice()),
        referrers.as_ref().map(|response| response.body().as_ref()),
    );
    Ok(found.into_iter().map(|one| Signature { form: one.form, digest: one.digest.to_string() }).collect())
}

async fn blob(client: &Client, reference: &Reference, digest: &Digest) -> anyhow::Result<Bytes> {
    let blob = registry::get(client, &format!("/v2/{}/blobs/{digest}", reference.repository)).await?;
    let bytes = blob.with_context(|| format!("no server has its blob {digest}: push it again"))?.into_body();
    anyhow::ensure!(Digest::of(&bytes) == *digest, "the registry sent other bytes in place of {digest}");
    Ok(bytes)
}

/// The module in the layers of a container image, or why there is none.
async fn module_of_container(
    client: &Client,
    reference: &Reference,
    document: Vec<u8>,
    config: &Digest,
    layers: Vec<Digest>,
) -> anyhow::Result<Result<Vec<u8>, String>> {
    let config = blob(client, reference, config).await?;
    let mut held = BTreeMap::new();
    for layer in layers {
        let bytes = blob(client, reference, &layer).await?;
        held.insert(layer, bytes.to_vec());
    }
    Ok(tokio::task::spawn_blocking(move || module_in_layers(&document, &config, &held)).await?)
}

fn module(wasm: &[u8]) -> anyhow::Result<Module> {
    let digest = Digest::of(wasm);
    let description = describe(wasm)?;
    let (os, role, target) = (description.os(), description.role(), description.target());
    let Description { is_component, exports, imports, producers } = description;
    let form = if is_component { "component" } else { "core module" };
    Ok(Module { digest: digest.to_string(), size: wasm.len(), form, role, os, target, exports, imports, producers })
}

fn table(listed: &[Listed]) -> String {
    let mut rows = vec![["REPOSITORY", "TAG", "DIGEST", "SIZE", "KIND"].map(str::to_string)];
    rows.extend(listed.iter().map(|row| {
        let digest = row.digest.chars().take("sha256:".len() + 12).collect();
        [row.repository.clone(), row.tag.clone(), digest, size(row.size), row.kind.to_string()]
    }));
    super::columns(&rows)
}

fn text(image: &Inspected) -> String {
    let mut lines = vec![
        ["Name".to_string(), image.name.clone()],
        ["Digest".to_string(), image.digest.clone()],
        ["Size".to_string(), size(image.size)],
        ["Kind".to_string(), image.kind.to_string()],
    ];
    let signatures = image.signatures.iter().map(|one| format!("{} {}", one.form, one.digest));
    lines.extend(titled("Signature", signatures));
    let Some(module) = &image.module else {
        let why = image.problem.as_ref().map_or(String::new(), |problem| format!(": {problem}"));
        lines.push(["Module".to_string(), format!("none that can be run{why}")]);
        return super::columns(&lines);
    };
    let target = module.target.as_ref().map_or(String::new(), |target| format!(", {target}"));
    lines.push(["Module".to_string(), format!("{} ({})", module.digest, module.form)]);
    lines.push(["Runs as".to_string(), format!("{} ({}{target})", module.role, module.os)]);
    for (title, names) in [("Exports", &module.exports), ("Imports", &module.imports), ("Made by", &module.producers)] {
        lines.extend(titled(title, names.iter().cloned()));
    }
    super::columns(&lines)
}

/// The rows, the first of them under its title.
fn titled(title: &'static str, rows: impl Iterator<Item = String>) -> impl Iterator<Item = [String; 2]> {
    let titles = std::iter::once(title).chain(std::iter::repeat(""));
    titles.zip(rows).map(|(title, row)| [title.to_string(), row])
}

/// Bytes in the unit that reads best.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_each_tag() {
        let row = |tag: &str, size| Listed {
            repository: "team/hello".to_string(),
            tag: tag.to_string(),
            digest: Digest::of(tag.as_bytes()).to_string(),
            size,
            kind: "Wasm artifact",
        };
        let expected = "\
REPOSITORY  TAG  DIGEST               SIZE    KIND
team/hello  1    sha256:6b86b273ff34  1.5 kB  Wasm artifact
team/hello  2    sha256:d4735e3a265e  2.0 MB  Wasm artifact
";
        assert_eq!(table(&[row("1", 1_500), row("2", 2_000_000)]), expected);
    }

    #[test]
    fn an_image_is_shown_with_what_it_needs_and_offers() {
        let module = Module {
            digest: "sha256:b".to_string(),
            size: 7,
            form: "component",
            role: "process",
            os: "wasip2",
            target: Some("wasi:cli/command@0.2.3".to_string()),
            exports: vec!["wasi:cli/run@0.2.3".to_string()],
            imports: vec!["wasi:cli/stdout@0.2.3".to_string(), "wasi:io/streams@0.2.3".to_string()],
            producers: Vec::new(),
        };
        let image = Inspected {
            name: "hello:1".to_string(),
            digest: "sha256:a".to_string(),
            size: 999,
            kind: "Wasm artifact",
            module: Some(module),
            problem: None,
            signatures: Vec::new(),
        };
        let expected = "\
Name     hello:1
Digest   sha256:a
Size     999 B
Kind     Wasm artifact
Module   sha256:b (component)
Runs as  process (wasip2, wasi:cli/command@0.2.3)
Exports  wasi:cli/run@0.2.3
Imports  wasi:cli/stdout@0.2.3
         wasi:io/streams@0.2.3
";
        assert_eq!(text(&image), expected);
        let signature = |form, digest: &str| Signature { form, digest: digest.to_string() };
        let signatures = vec![signature("simple signing", "sha256:c"), signature("bundle", "sha256:d")];
        let signed = Inspected { signatures, ..image.clone() };
        let rows = "Kind       Wasm artifact\nSignature  simple signing sha256:c\n           bundle sha256:d\nModule ";
        assert!(text(&signed).contains(rows), "{}", text(&signed));
        let other = Inspected { module: None, ..image };
        assert!(text(&other).ends_with("Module  none that can be run\n"));
    }

    #[test]
    fn another_registry_is_refused_with_a_remedy() {
        assert!(reference("ghcr.io/x:1").is_err_and(|error| error.to_string().contains("leave the host out")));
    }
}
