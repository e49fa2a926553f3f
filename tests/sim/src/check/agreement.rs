//! In the end all servers have the same, and it is what the changes that were told make.

use std::collections::BTreeMap;

use shoal_store::Store;

use crate::history::History;

pub fn agree(stores: &[(u64, Store)], history: &History) -> Result<(), String> {
    let (first, store) = stores.first().ok_or("no server is left")?;
    let image = store.image();
    for (id, other) in stores {
        if !other.image().chunks().eq(image.clone().chunks()) {
            return Err(format!("servers {first} and {id} have different states"));
        }
    }
    let mut replayed: BTreeMap<&String, &String> = BTreeMap::new();
    for (key, value) in history.changes.values().flatten() {
        match value {
            Some(value) => replayed.insert(key, value),
            None => replayed.remove(key),
        };
    }
    let state: BTreeMap<String, String> =
        image.iter().map(|(key, entry)| (key.clone(), String::from_utf8_lossy(&entry.value).into_owned())).collect();
    if !state.iter().eq(replayed) {
        return Err("the state is not what the changes make that watchers were told".to_string());
    }
    let revisions = history.changes.len() as u64;
    if image.revision().0 != revisions {
        return Err(format!("there are {} revisions, and watchers were told of {revisions}", image.revision()));
    }
    Ok(())
}
