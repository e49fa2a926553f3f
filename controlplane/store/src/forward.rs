//! Questions to the leader: all that wait go out together on one stream, and the answers come back as they are ready.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Member, PeerIo, PeerStream, Peers};
use crate::leader::FORWARD_DEADLINE;
use crate::random::seeded;
use crate::wire::{self, ForwardReply, ForwardRequest};

/// How many questions may wait to be written.
const WAITING: usize = 4096;

/// How many are written together.
const TOGETHER: usize = 256;

/// A question got no answer.
pub(crate) enum Unsent {
    /// It certainly did not arrive.
    NotSent,
    /// It may have arrived.
    Sent(String),
}

type Answer = Result<ForwardReply, Unsent>;

struct Asked {
    request: ForwardRequest,
    answer: oneshot::Sender<Answer>,
}

/// The way to the server that leads.
pub(crate) struct Forwards {
    peers: Arc<dyn Peers>,
    handle: Handle,
    lane: Mutex<Option<(u64, mpsc::Sender<Asked>)>>,
}

impl Forwards {
    pub(crate) fn new(peers: Arc<dyn Peers>, handle: Handle) -> Self {
        Self { peers, handle, lane: Mutex::default() }
    }

    /// One question and its answer.
    pub(crate) async fn ask(&self, to: &Member, request: &ForwardRequest) -> Answer {
        let (sender, answer) = oneshot::channel();
        let asked = Asked { request: request.clone(), answer: sender };
        let late = || Err(Unsent::Sent("it did not answer in time".to_string()));
        let asking = async {
            if self.lane(to).send(asked).await.is_err() {
                return Err(Unsent::NotSent);
            }
            // A lane that ends answers what it has; what it never took was never sent.
            answer.await.unwrap_or(Err(Unsent::NotSent))
        };
        tokio::time::timeout(FORWARD_DEADLINE, asking).await.unwrap_or_else(|_| late())
    }

    /// The lane to a server; one to another server is of no use any more, and ends when it is idle.
    fn lane(&self, to: &Member) -> mpsc::Sender<Asked> {
        let mut lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, sender)) = lane.as_ref()
            && *id == to.id
            && !sender.is_closed()
        {
            return sender.clone();
        }
        let (sender, asked) = mpsc::channel(WAITING);
        *lane = Some((to.id, sender.clone()));
        self.handle.spawn(seeded(run(self.peers.clone(), to.clone(), asked)));
        sender
    }
}

/// The questions that were written, by their numbers.
type Pending = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>>;

fn locked(pending: &Pending) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Answer>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One lane, until its stream breaks or nobody can ask any more.
async fn run(peers: Arc<dyn Peers>, to: Member, mut asked: mpsc::Receiver<Asked>) {
    let pending = Pending::default();
    let reason = match peers.open(&to, PeerStream::Forward).await {
        Ok(stream) => converse(stream, &mut asked, &pending).await,
        Err(error) => error.to_string(),
    };
    asked.close();
    for (_, answer) in std::mem::take(&mut *locked(&pending)) {
        // Whoever gave up does not listen.
        let _ = answer.send(Err(Unsent::Sent(reason.clone())));
    }
    while let Some(asked) = asked.recv().await {
        let _ = asked.answer.send(Err(Unsent::NotSent));
    }
}

async fn converse(stream: Box<dyn PeerIo>, asked: &mut mpsc::Receiver<Asked>, pending: &Pending) -> String {
    let (replies, requests) = tokio::io::split(stream);
    let ended = tokio::select! {
        biased;
        ended = read(wire::buffered(replies), pending) => ended,
        ended = write(requests, asked, pending) => ended,
    };
    ended.err().map_or_else(|| "the leader ended the conversation".to_string(), |error| error.to_string())
}

async fn read(mut replies: impl AsyncRead + Unpin, pending: &Pending) -> io::Result<()> {
    while let Some((number, reply)) = wire::receive::<(u64, ForwardReply)>(&mut replies).await? {
        if let Some(answer) = locked(pending).remove(&number) {
            let _ = answer.send(Ok(reply));
        }
    }
    Ok(())
}

async fn write(
    mut requests: impl AsyncWrite + Unpin,
    asked: &mut mpsc::Receiver<Asked>,
    pending: &Pending,
) -> io::Result<()> {
    let (mut number, mut batch) = (0, Vec::new());
    while asked.recv_many(&mut batch, TOGETHER).await > 0 {
        let mut frames = Vec::new();
        // Where the frame of each ends.
        let mut ends = Vec::new();
        for Asked { request, answer } in batch.drain(..) {
            wire::add_frame(&mut frames, &(number, request))?;
            ends.push((frames.len(), number));
            locked(pending).insert(number, answer);
            number += 1;
        }
        let mut written = 0;
        let outcome = loop {
            match requests.write(&frames[written..]).await {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) => break Err(error),
            }
            if written == frames.len() {
                break requests.flush().await;
            }
        };
        if outcome.is_err() {
            // What did not leave as a whole cannot have arrived.
            for (_, number) in ends.into_iter().filter(|(end, _)| *end > written) {
                if let Some(answer) = locked(pending).remove(&number) {
                    let _ = answer.send(Err(Unsent::NotSent));
                }
            }
        }
        outcome?;
    }
    Ok(())
}

/// Where the answer to a question goes. Dropped without one, it says that nobody knows.
pub(crate) struct Reply {
    number: u64,
    place: Option<mpsc::OwnedPermit<(u64, ForwardReply)>>,
}

impl Reply {
    pub(crate) fn send(mut self, reply: ForwardReply) {
        self.give(reply);
    }

    fn give(&mut self, reply: ForwardReply) {
        if let Some(place) = self.place.take() {
            place.send((self.number, reply));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.give(ForwardReply::Unknown("the leader has stopped".to_string()));
    }
}

/// The other side: has `take` take each question, which is answered as soon as it can be, whatever the others wait for.
pub(crate) async fn serve<F, R>(stream: Box<dyn PeerIo>, take: F) -> io::Result<()>
where
    F: Fn(ForwardRequest, Reply) -> R,
    R: Future<Output = ()>,
{
    let (requests, replies) = tokio::io::split(stream);
    let (mut requests, mut replies) = (wire::buffered(requests), wire::Sender::new(replies));
    let (sender, mut ready) = mpsc::channel::<(u64, ForwardReply)>(WAITING);
    let asking = async move {
        while let Some((number, request)) = wire::receive::<(u64, ForwardRequest)>(&mut requests).await? {
            // A place for its answer, so that one who asks without reading is not asked for more.
            let place = sender.clone().reserve_owned().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            take(request, Reply { number, place: Some(place) }).await;
        }
        Ok(())
    };
    let answering = async move {
        let mut batch = Vec::new();
        while ready.recv_many(&mut batch, TOGETHER).await > 0 {
            replies.send(batch.drain(..)).await?;
        }
        Ok(())
    };
    tokio::try_join!(asking, answering).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_that_nobody_answers_any_more_may_have_been_carried_out() {
        let (here, there) = tokio::io::duplex(1024);
        let take = |request, reply: Reply| async move {
            match request {
                ForwardRequest::ReadIndex => reply.send(ForwardReply::ReadIndex(7)),
                _ => drop(reply),
            }
        };
        let serving = tokio::spawn(serve(Box::new(there), take));
        let (replies, requests) = tokio::io::split(here);
        let (mut replies, mut requests) = (wire::buffered(replies), wire::Sender::new(requests));
        let write = ForwardRequest::Write(bytes::Bytes::new());
        requests.send([(1u64, write), (2, ForwardRequest::ReadIndex)]).await.expect("asked");
        let mut answers = BTreeMap::new();
        for _ in 0..2 {
            let (number, reply) = wire::expect::<(u64, ForwardReply)>(&mut replies).await.expect("an answer");
            answers.insert(number, reply);
        }
        assert!(matches!(answers[&1], ForwardReply::Unknown(_)), "{answers:?}");
        assert!(matches!(answers[&2], ForwardReply::ReadIndex(7)), "{answers:?}");
        drop((replies, requests));
        serving.await.expect("no panic").expect("it ended in order");
    }
}
