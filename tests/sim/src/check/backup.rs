//! What is restored is what was backed up, and goes on above it.

use std::sync::Arc;

use shoal_store::backup::{self, Opening};
use shoal_store::{Image, Member, Revision, Store};

use crate::disk::SimDisk;
use crate::world::World;

pub async fn restores(world: &World, image: Image) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("a backup: {error}");
    let made = backup::create(image.clone(), String::new(), world.keys(), None).map_err(|error| text(&error))?;
    let bytes: Vec<u8> = made.collect::<std::io::Result<Vec<_>>>().map_err(|error| text(&error))?.concat();
    let opening = Opening::Keys(world.keys().clone());
    let (_, opened) = backup::read(&bytes[..], Some(&opening)).map_err(|error| text(&error))?;
    let read = opened.ok_or("a backup was not opened")?.image;
    if !read.clone().chunks().eq(image.clone().chunks()) {
        return Err("a backup has another state".to_string());
    }
    let id = read.last_member() + 1;
    let raised = read.raised(Revision(image.revision().0 + 1_000_000), id);
    let member = Member { id, name: "restored".to_string(), ..Member::default() };
    let disk = SimDisk::new(1);
    let config = world.config(member.clone(), disk.plugged_in());
    shoal_store::seed(config.disk.clone(), config.keys.clone(), member, raised).await.map_err(|error| text(&error))?;
    let store = Store::open(config, Arc::new(world.net.side(id))).await.map_err(|error| text(&error))?;
    store.read_barrier().await.map_err(|error| text(&error))?;
    let view = store.view();
    let same = image.iter().all(|(key, entry)| view.get(key) == Some(entry)) && view.len() == image.len();
    let later = view.revision() > image.revision();
    store.shutdown().await;
    if same && later { Ok(()) } else { Err("a restored store has another state".to_string()) }
}
