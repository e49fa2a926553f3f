//! Work that a guest began and asks for later.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio_util::task::AbortOnDropHandle;

/// Work on a task of its own, ended when it is dropped.
pub(crate) enum Pending<T> {
    Running(AbortOnDropHandle<T>),
    Done(T),
    /// The task panicked, or the answer was taken.
    Over,
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Running(AbortOnDropHandle::new(tokio::spawn(work)))
    }

    /// Waits for the end. Cancel safe.
    pub(crate) async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll_ready(context)).await;
    }

    /// The answer if it is here.
    pub(crate) fn get(&mut self) -> Poll<Option<&mut T>> {
        if self.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(match self {
            Self::Done(answer) => Some(answer),
            Self::Running(_) | Self::Over => None,
        })
    }

    /// Takes the answer if it is here; none if the work failed.
    pub(crate) fn take(&mut self) -> Poll<Option<T>> {
        if self.get().is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(match std::mem::replace(self, Self::Over) {
            Self::Done(answer) => Some(answer),
            Self::Running(_) | Self::Over => None,
        })
    }

    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Self::Running(handle) = self {
            match Pin::new(handle).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(answer)) => *self = Self::Done(answer),
                Poll::Ready(Err(_)) => *self = Self::Over,
            }
        }
        Poll::Ready(())
    }
}
