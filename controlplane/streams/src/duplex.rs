//! Both directions of something that two tasks exchange.

use tokio::sync::mpsc;

/// One end: what is sent here arrives at the other. Dropping the sender ends that direction, dropping the end all of it.
pub struct Duplex<T> {
    /// To the other end.
    pub sender: mpsc::Sender<T>,
    /// From the other end.
    pub receiver: mpsc::Receiver<T>,
}

impl<T> Duplex<T> {
    /// Both ends; `capacity` items wait in each direction.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (to_right, from_left) = mpsc::channel(capacity);
        let (to_left, from_right) = mpsc::channel(capacity);
        (Self { sender: to_right, receiver: from_right }, Self { sender: to_left, receiver: from_left })
    }
}
