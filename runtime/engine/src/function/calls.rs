//! The requests that are in one instance: who waits for them, until when, and what they are told when the instance ends.
//!
//! A request is in it until its answer is read to the end. Whoever waits too long, or for nothing any more, is gone: nothing in the
//! guest can be stopped by itself, so that the instance takes no more requests and ends when all who are in it are done or gone.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use http::Response;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::Ended;
use crate::grants::Body;
use crate::stats::{self, Counters};

/// How long an instance waits for a request before it goes.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// What comes back of a request: an answer, with what breaks its body off, or why there is none.
pub(super) type Answer = Result<(Response<Body>, oneshot::Receiver<String>), Refusal>;

/// Why there is no answer.
pub(super) enum Refusal {
    /// The guest says so.
    Code(String),
    /// Its instance ended.
    Ended(Ended),
}

/// Who waits for an answer, until when, and what stays until he has it.
pub(super) struct Waiting {
    pub seat: Arc<Seat>,
    pub head: oneshot::Sender<Answer>,
    pub deadline: Instant,
    pub place: Place,
    /// What must be there meanwhile.
    pub keeps: Arc<dyn Any + Send + Sync>,
}

/// A place to work and one to wait.
pub(super) type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Which of the requests in an instance.
pub(super) type CallId = u64;

/// The requests in one instance.
pub(super) struct Calls {
    state: Mutex<State>,
    /// Something changed for whoever looks after the instance.
    changed: Notify,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct State {
    next: CallId,
    running: BTreeMap<CallId, Running>,
    /// When the time of the last one is over, and with it that of all that the guest does afterwards.
    last_deadline: Option<Instant>,
    /// Somebody is gone.
    is_leaving: bool,
    /// What the instance holds while it works, though nobody may wait for it any more.
    working: Option<Working>,
    resting: Option<Resting>,
    /// The loop that takes requests.
    taker: Option<Waker>,
}

struct Running {
    deadline: Instant,
    /// Until it is answered.
    head: Option<oneshot::Sender<Answer>>,
    /// From then on.
    cut: Option<oneshot::Sender<String>>,
    is_gone: bool,
    place: Place,
    _keeps: Arc<dyn Any + Send + Sync>,
}

struct Working {
    _counted: stats::Instance,
    /// That of the last one who was in it.
    place: Option<Place>,
}

struct Resting {
    since: Instant,
    _places: Place,
}

impl Calls {
    pub(super) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), counters })
    }

    /// Takes a request in; none if nobody waits for it any more.
    pub(super) fn begin(self: &Arc<Self>, waiting: Waiting) -> Option<CallId> {
        let Waiting { seat, head, deadline, place, keeps } = waiting;
        let mut sitting = seat.lock();
        if matches!(*sitting, Sitting::Gone) {
            return None;
        }
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let working = || Working { _counted: self.counters.instance(), place: None };
        state.working.get_or_insert_with(working).place = None;
        state.resting = None;
        state.last_deadline = state.last_deadline.max(Some(deadline));
        let running = Running { deadline, head: Some(head), cut: None, is_gone: false, place, _keeps: keeps };
        state.running.insert(id, running);
        drop(state);
        *sitting = Sitting::In(Arc::clone(self), id);
        self.changed.notify_one();
        Some(id)
    }

    /// Hands the head of an answer to whoever waits for it.
    pub(super) fn answer(&self, id: CallId, response: Response<Body>) {
        let mut state = self.lock();
        let Some(running) = state.running.get_mut(&id) else { return };
        let Some(head) = running.head.take() else { return };
        let (cut, is_cut) = oneshot::channel();
        running.cut = Some(cut);
        drop(state);
        // Whoever has just gone says so himself.
        let _ = head.send(Ok((response, is_cut)));
    }

    /// Tells whoever waits that the guest has no answer.
    pub(super) fn refuse(&self, id: CallId, code: String) {
        let head = self.lock().running.get_mut(&id).and_then(|running| running.head.take());
        self.over(id);
        if let Some(head) = head {
            let _ = head.send(Err(Refusal::Code(code)));
        }
    }

    /// All of the answer is read.
    fn over(&self, id: CallId) {
        let mut state = self.lock();
        if state.running.get(&id).is_none_or(|running| running.is_gone) {
            return;
        }
        let Some(running) = state.running.remove(&id) else { return };
        let was_last = state.running.is_empty();
        if let Some(working) = state.working.as_mut().filter(|_| was_last) {
            working.place = Some(running.place);
        }
        let taker = state.taker.take();
        drop(state);
        self.changed.notify_one();
        if let Some(taker) = taker {
            taker.wake();
        }
    }

    /// Nobody waits for the answer, or the rest of it, any more.
    fn abandon(&self, id: CallId) {
        let mut state = self.lock();
        if let Some(running) = state.running.get_mut(&id) {
            running.is_gone = true;
            state.is_leaving = true;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// How many are in it, and whether it may take more. `taker` is woken when that changes.
    pub(super) fn look(&self, taker: &Waker) -> (usize, bool) {
        let mut state = self.lock();
        if !state.taker.as_ref().is_some_and(|known| known.will_wake(taker)) {
            state.taker = Some(taker.clone());
        }
        (state.running.len(), !state.is_leaving)
    }

    /// Nothing goes on in the guest: it rests on the places of those that wait for requests, if there are any.
    pub(super) fn rest(&self, now: Instant, places: impl FnOnce() -> Option<Place>) -> bool {
        let mut state = self.lock();
        if state.resting.is_some() {
            return true;
        }
        let Some(places) = places() else { return false };
        state.resting = Some(Resting { since: now, _places: places });
        let worked = state.working.take();
        drop(state);
        drop(worked);
        self.changed.notify_one();
        true
    }

    /// Waits until the instance has to end: all who are in it are gone, what it does afterwards takes too long, or it has rested for
    /// too long. Tells those whose time is over.
    pub(super) async fn lost(&self) -> Ended {
        loop {
            let changed = self.changed.notified();
            let next = match self.review(Instant::now()) {
                Review::Lost(ended) => return ended,
                Review::Until(next) => next,
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// What there is to do at this time.
    fn review(&self, now: Instant) -> Review {
        self.lock().review(now)
    }

    /// The instance has ended: tells all who are still in it.
    pub(super) fn end(&self, ended: &Ended) {
        let mut state = self.lock();
        let running = std::mem::take(&mut state.running);
        // Whoever has not read his answer's end yet still knows of this.
        let held = (state.working.take(), state.resting.take(), state.taker.take());
        drop(state);
        drop(held);
        for (_, mut running) in running {
            running.tell(ended);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Review {
    Lost(Ended),
    /// Nothing before then.
    Until(Instant),
}

impl State {
    fn review(&mut self, now: Instant) -> Review {
        for running in self.running.values_mut().filter(|running| !running.is_gone && running.deadline <= now) {
            running.tell(&Ended::TooLate);
            running.is_gone = true;
            self.is_leaving = true;
        }
        let waiting = self.running.values().filter(|running| !running.is_gone).map(|running| running.deadline).min();
        match (waiting, &self.resting) {
            (Some(next), _) => Review::Until(next),
            (None, _) if !self.running.is_empty() => Review::Lost(Ended::TooLate),
            (None, Some(resting)) if resting.since + IDLE <= now => Review::Lost(Ended::Returned),
            (None, Some(resting)) => Review::Until(resting.since + IDLE),
            (None, None) => match self.last_deadline {
                Some(deadline) if deadline <= now => Review::Lost(Ended::TooLate),
                next => Review::Until(next.unwrap_or(now + IDLE)),
            },
        }
    }
}

impl Running {
    fn tell(&mut self, ended: &Ended) {
        // Whoever has just gone need not hear it.
        if let Some(head) = self.head.take() {
            let _ = head.send(Err(Refusal::Ended(ended.clone())));
        } else if let Some(cut) = self.cut.take() {
            let _ = cut.send(ended.to_string());
        }
    }
}

/// Where a request is: whoever waits for it may go before it is in an instance.
#[derive(Default)]
pub(super) struct Seat(Mutex<Sitting>);

#[derive(Default)]
enum Sitting {
    #[default]
    Outside,
    In(Arc<Calls>, CallId),
    Gone,
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Sitting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) -> Sitting {
        std::mem::replace(&mut *self.lock(), Sitting::Gone)
    }
}

/// Whoever waits for an answer. Dropping it means that nobody does any more.
pub(super) struct Caller {
    seat: Option<Arc<Seat>>,
}

impl Caller {
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        Self { seat: Some(seat) }
    }

    /// All of the answer is read, or there is none.
    pub(super) fn finish(mut self) {
        if let Some(Sitting::In(calls, id)) = self.seat.take().map(|seat| seat.leave()) {
            calls.over(id);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(Sitting::In(calls, id)) = self.seat.take().map(|seat| seat.leave()) {
            calls.abandon(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use tokio::sync::Semaphore;

    use super::*;

    type Answers = oneshot::Receiver<Answer>;

    const SECOND: Duration = Duration::from_secs(1);

    fn place() -> Place {
        let places = Arc::new(Semaphore::new(2));
        let take = || Arc::clone(&places).try_acquire_owned().expect("a place");
        (take(), take())
    }

    /// A request that waits until then.
    fn begin(calls: &Arc<Calls>, deadline: Instant) -> (CallId, Caller, Answers) {
        let (head, answer) = oneshot::channel();
        let seat = Arc::new(Seat::default());
        let caller = Caller::new(Arc::clone(&seat));
        let waiting = Waiting { seat, head, deadline, place: place(), keeps: Arc::new(()) };
        (calls.begin(waiting).expect("somebody waits"), caller, answer)
    }

    fn response() -> Response<Body> {
        Response::new(Empty::new().map_err(|never| match never {}).boxed())
    }

    fn until(review: &Review) -> Option<Instant> {
        if let Review::Until(next) = review { Some(*next) } else { None }
    }

    #[tokio::test]
    async fn who_is_late_is_told_and_the_others_may_finish() {
        let calls = Calls::new(Arc::default());
        let now = Instant::now();
        let (_, _late, late_answer) = begin(&calls, now + SECOND);
        let (other, other_caller, other_answer) = begin(&calls, now + SECOND * 3);
        assert_eq!(until(&calls.review(now)), Some(now + SECOND));
        assert_eq!(until(&calls.review(now + SECOND)), Some(now + SECOND * 3));
        assert!(matches!(late_answer.await, Ok(Err(Refusal::Ended(Ended::TooLate)))));
        assert_eq!(calls.look(Waker::noop()), (2, false));
        calls.answer(other, response());
        assert!(other_answer.await.is_ok_and(|answer| answer.is_ok()));
        assert!(until(&calls.review(now + SECOND)).is_some());
        other_caller.finish();
        assert!(matches!(calls.lost().await, Ended::TooLate));
    }

    #[tokio::test]
    async fn a_body_that_is_late_is_broken_off() {
        let calls = Calls::new(Arc::default());
        let now = Instant::now();
        let (id, _caller, answer) = begin(&calls, now + SECOND);
        calls.answer(id, response());
        let Ok(Ok((_, cut))) = answer.await else { panic!("it is answered") };
        assert!(matches!(calls.review(now + SECOND), Review::Lost(Ended::TooLate)));
        assert_eq!(cut.await.as_deref(), Ok("the function took too long"));
    }

    #[tokio::test]
    async fn an_instance_ends_with_the_last_who_is_gone() {
        let calls = Calls::new(Arc::default());
        let (_, first, _answer) = begin(&calls, Instant::now() + SECOND * 60);
        let (_, second, _answer) = begin(&calls, Instant::now() + SECOND * 60);
        let mut lost = Box::pin(calls.lost());
        drop(first);
        assert!(futures_util::poll!(&mut lost).is_pending());
        assert_eq!(calls.look(Waker::noop()), (2, false));
        drop(second);
        lost.await;
    }

    #[tokio::test]
    async fn who_goes_before_there_is_an_instance_is_not_taken_in() {
        let calls = Calls::new(Arc::default());
        let (head, _answer) = oneshot::channel();
        let seat = Arc::new(Seat::default());
        drop(Caller::new(Arc::clone(&seat)));
        let waiting = Waiting { seat, head, deadline: Instant::now(), place: place(), keeps: Arc::new(()) };
        assert!(calls.begin(waiting).is_none());
    }

    #[test]
    fn what_goes_on_after_the_answers_has_the_time_of_the_last_and_rest_has_its_own() {
        let counters = Arc::<Counters>::default();
        let calls = Calls::new(Arc::clone(&counters));
        let now = Instant::now();
        let (_, caller, _answer) = begin(&calls, now + SECOND * 5);
        caller.finish();
        assert_eq!(until(&calls.review(now)), Some(now + SECOND * 5));
        assert!(matches!(calls.review(now + SECOND * 5), Review::Lost(Ended::TooLate)));
        assert_eq!(counters.snapshot(0).instances, 1);
        assert!(!calls.rest(now, || None));
        assert!(calls.rest(now, || Some(place())));
        assert_eq!(counters.snapshot(0).instances, 0);
        assert_eq!(until(&calls.review(now + SECOND * 5)), Some(now + IDLE));
        assert!(matches!(calls.review(now + IDLE), Review::Lost(Ended::Returned)));
    }

    #[tokio::test]
    async fn the_end_is_told_to_all_who_are_in_it() {
        let counters = Arc::<Counters>::default();
        let calls = Calls::new(Arc::clone(&counters));
        let (id, _reads, answer) = begin(&calls, Instant::now() + SECOND * 60);
        let (_, _waits, unanswered) = begin(&calls, Instant::now() + SECOND * 60);
        calls.answer(id, response());
        let Ok(Ok((_, cut))) = answer.await else { panic!("it is answered") };
        calls.end(&Ended::Failed("it trapped\nat some place".to_string()));
        assert_eq!(cut.await.as_deref(), Ok("the function failed: it trapped"));
        assert_eq!(counters.snapshot(0).instances, 0);
        assert!(matches!(unanswered.await, Ok(Err(Refusal::Ended(Ended::Failed(_))))));
    }
}
