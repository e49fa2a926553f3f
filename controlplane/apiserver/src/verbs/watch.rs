//! `watch`: the changes of a collection, from a revision on, until the time is over or the client is gone.
//!
//! The store's events are turned into frames by a task of its own (see `watch_frames.rs`); between the two stands a
//! bounded channel. A client that does not read stops the task, the task's store watch then falls behind, and the
//! store cuts it: memory stays bounded, and the client lists anew.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use shoal_api::Status;
use shoal_store::{Revision, View, Watch, WatchEvent};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use crate::handler::Call;
use crate::negotiate::{self, Form};
use crate::selection::Selection;
use crate::verbs::list_options::{self, Begin};
use crate::verbs::watch_frames::{self, Frames};
use crate::{Body, body, keys, limits, respond};

/// One watch at work.
struct Session {
    frames: Frames,
    client: mpsc::Sender<Bytes>,
    prefix: String,
    bookmarks: bool,
    /// The client has every change up to here.
    seen: Revision,
}

/// The client is gone, or does not read.
struct Gone;

/// Opens the watch; what fails later is told in an ERROR frame.
pub(crate) async fn answer(call: Call) -> Result<Response<Body>, Status> {
    let form = negotiate::form(&call.headers, &[Form::Object, Form::Table, Form::Metadata])?;
    let shown = respond::View::new(call.resource, form, &call.query)?;
    let selection = Selection::parse(call.resource, &call.query)?;
    let begin = list_options::watch_begin(&call.query)?;
    let seconds = call
        .query
        .number("timeoutSeconds")?
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0);
    let lifetime = seconds.map_or(limits::WATCH_DEFAULT, Duration::from_secs);
    let place = call.shared.long_running.clone().try_acquire_owned().map_err(|_| {
        Status::too_many_requests(
            "too many watches are open, please try again later".to_owned(),
            limits::RETRY_AFTER_SECONDS,
        )
    })?;
    let (initial, after) = start(&call, begin).await?;
    let prefix = keys::collection(call.resource.storage, call.namespace());
    let (client, body) = body::channel(limits::WATCH_BUFFER_FRAMES);
    // The watch is opened before the answer, so that nothing can be compacted between them.
    let changes = match call.store().watch(&prefix, after) {
        Ok(changes) => changes,
        Err(_) => {
            let status = Status::expired(format!("too old resource version: {after}"));
            let _ = client.try_send(watch_frames::error(&status));
            return Ok(streaming(body));
        }
    };
    let announced = matches!(begin, Begin::Initial { announced: true, .. });
    let frames = Frames { shown, selection, columns_sent: false };
    let session = Session { frames, client, prefix, bookmarks: call.query.flag("allowWatchBookmarks"), seen: after };
    let stop = call.shared.stop.clone();
    let gone = session.client.clone();
    let work = async move {
        let _place = place;
        tokio::select! {
            () = stop.cancelled() => {}
            () = gone.closed() => {}
            () = session.run(initial, announced, changes, lifetime) => {}
        }
    };
    call.shared.tasks.spawn(work.instrument(tracing::debug_span!("watch", resource = call.resource.plural)));
    Ok(streaming(body))
}

fn streaming(body: Body) -> Response<Body> {
    let mut response = respond::json_text(StatusCode::OK, Bytes::new());
    *response.body_mut() = body;
    response
}

/// The objects to begin with, if any, and the revision whose later changes follow.
async fn start(call: &Call, begin: Begin) -> Result<(Option<View>, Revision), Status> {
    match begin {
        Begin::Initial { at, .. } => {
            match at {
                None => call.barrier().await.map(drop)?,
                Some(0) => {}
                Some(revision) => list_options::wait_for(call, revision).await?,
            }
            let view = call.store().view();
            let revision = view.revision();
            Ok((Some(view), revision))
        }
        Begin::After(revision) => {
            list_options::wait_for(call, revision).await?;
            Ok((None, Revision(revision)))
        }
        Begin::Now => {
            call.barrier().await?;
            Ok((None, call.store().view().revision()))
        }
    }
}

impl Session {
    async fn run(mut self, initial: Option<View>, announced: bool, changes: Watch, lifetime: Duration) {
        let end = Instant::now() + lifetime;
        if let Some(view) = initial
            && self.send_initial(&view, announced).await.is_err()
        {
            return;
        }
        if self.follow(changes, end).await.is_err() {
            tracing::debug!("watch ended by its client");
        }
    }

    async fn send_initial(&mut self, view: &View, announced: bool) -> Result<(), Gone> {
        for (_, entry) in view.range(&self.prefix, None) {
            match self.frames.present(&entry.value, entry.modified) {
                Ok(Some(frame)) => self.send(frame).await?,
                Ok(None) => {}
                Err(status) => return self.fail(&status).await,
            }
        }
        if announced {
            self.send(self.frames.bookmark(view.revision(), true)).await?;
        }
        Ok(())
    }

    async fn follow(&mut self, mut changes: Watch, end: Instant) -> Result<(), Gone> {
        let mut bookmark = tokio::time::interval_at(Instant::now() + limits::BOOKMARK, limits::BOOKMARK);
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => {
                    // A last bookmark lets the client come back where it was.
                    return self.send_bookmark().await;
                }
                event = changes.next() => match event {
                    Some(Ok(WatchEvent::Changes(batch))) => {
                        for change in &batch {
                            match self.frames.change(change) {
                                Ok(Some(frame)) => self.send(frame).await?,
                                Ok(None) => {}
                                Err(status) => return self.fail(&status).await,
                            }
                            self.seen = self.seen.max(change.revision);
                        }
                    }
                    Some(Ok(WatchEvent::Progress(revision))) => self.seen = self.seen.max(revision),
                    Some(Err(_)) => return self.fail(&Status::expired(format!("too old resource version: {}", self.seen))).await,
                    None => return Ok(()),
                },
                _ = bookmark.tick() => self.send_bookmark().await?,
            }
        }
    }

    async fn send_bookmark(&self) -> Result<(), Gone> {
        if self.bookmarks { self.send(self.frames.bookmark(self.seen, false)).await } else { Ok(()) }
    }

    async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        match tokio::time::timeout(limits::WATCH_SEND, self.client.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone),
            Err(_) => {
                tracing::debug!("slow watch cut");
                Err(Gone)
            }
        }
    }

    async fn fail(&self, status: &Status) -> Result<(), Gone> {
        self.send(watch_frames::error(status)).await?;
        Err(Gone)
    }
}
