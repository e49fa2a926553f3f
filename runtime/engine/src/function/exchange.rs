//! Where the requests of a function meet its instances: an instance that has room asks for a request, a request that finds none
//! that asks needs a new one. It waits for nothing itself.
//!
//! An instance is called before it gets a request, and may have no room any more when it comes: what it does not take is for another,
//! so that there are never more requests than instances that were called for them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Which of a function's instances.
pub(super) type InstanceId = u64;

/// Requests, and instances that have room.
pub(super) struct Exchange<C> {
    desk: Mutex<Desk<C>>,
}

struct Desk<C> {
    calls: VecDeque<C>,
    /// The one that asked last is called first: its memory is the warmest, and the others may go.
    asking: Vec<Asking>,
    next: InstanceId,
}

struct Asking {
    instance: InstanceId,
    waker: Waker,
    is_called: bool,
}

impl<C> Exchange<C> {
    pub(super) fn new() -> Self {
        Self { desk: Mutex::new(Desk { calls: VecDeque::new(), asking: Vec::new(), next: 0 }) }
    }

    /// A name for a new instance.
    pub(super) fn name(&self) -> InstanceId {
        let mut desk = self.lock();
        desk.next += 1;
        desk.next
    }

    /// Leaves a request for an instance that asks. Without one it is given back.
    pub(super) fn offer(&self, call: C) -> Option<C> {
        let mut desk = self.lock();
        let Some(asking) = desk.asking.iter_mut().rfind(|asking| !asking.is_called) else { return Some(call) };
        asking.is_called = true;
        let waker = asking.waker.clone();
        desk.calls.push_back(call);
        drop(desk);
        waker.wake();
        None
    }

    /// A request for this instance. Until there is one it asks.
    pub(super) fn poll_take(&self, instance: InstanceId, context: &mut Context<'_>) -> Poll<C> {
        let mut desk = self.lock();
        desk.asking.retain(|asking| asking.instance != instance);
        if let Some(call) = desk.calls.pop_front() {
            return Poll::Ready(call);
        }
        desk.asking.push(Asking { instance, waker: context.waker().clone(), is_called: false });
        Poll::Pending
    }

    /// The instance does not ask any more. Each of the requests that come back needs a new instance.
    pub(super) fn withdraw(&self, instance: InstanceId) -> Vec<C> {
        let mut desk = self.lock();
        desk.asking.retain(|asking| asking.instance != instance);
        let called = desk.asking.iter().filter(|asking| asking.is_called).count();
        let left = desk.calls.len().min(called);
        desk.calls.split_off(left).into()
    }

    fn lock(&self) -> MutexGuard<'_, Desk<C>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(exchange: &Exchange<&'static str>, instance: InstanceId) -> Option<&'static str> {
        match exchange.poll_take(instance, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(call) => Some(call),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_request_without_an_instance_that_asks_comes_back() {
        let exchange = Exchange::new();
        assert_eq!(exchange.offer("a"), Some("a"));
        let instance = exchange.name();
        assert_eq!(take(&exchange, instance), None);
        assert_eq!(exchange.offer("a"), None);
        // It was called already.
        assert_eq!(exchange.offer("b"), Some("b"));
        assert_eq!(take(&exchange, instance), Some("a"));
        // It has asked once.
        assert_eq!(exchange.offer("b"), Some("b"));
    }

    #[test]
    fn what_an_instance_leaves_is_for_another_or_comes_back() {
        let exchange = Exchange::new();
        let [first, second] = [exchange.name(), exchange.name()];
        assert_eq!((take(&exchange, first), take(&exchange, second)), (None, None));
        assert_eq!((exchange.offer("a"), exchange.offer("b")), (None, None));
        assert_eq!(exchange.withdraw(second), ["b"]);
        assert_eq!(take(&exchange, first), Some("a"));
        assert_eq!(take(&exchange, first), None);
        assert_eq!(exchange.offer("c"), None);
        assert_eq!(exchange.withdraw(first), ["c"]);
        assert!(exchange.withdraw(first).is_empty());
    }

    #[test]
    fn an_instance_that_comes_uncalled_takes_what_waits() {
        let exchange = Exchange::new();
        let [called, early] = [exchange.name(), exchange.name()];
        take(&exchange, called);
        assert_eq!(exchange.offer("a"), None);
        assert_eq!(take(&exchange, early), Some("a"));
        assert_eq!(take(&exchange, called), None);
        assert!(exchange.withdraw(called).is_empty());
    }
}
