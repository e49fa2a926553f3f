//! What a command reads and writes, so that a shell can put files and other commands in their place.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

pub struct Streams {
    pub input: Box<dyn Read>,
    pub output: Box<dyn Write>,
}

impl Streams {
    /// The program's own.
    pub fn standard() -> Streams {
        Streams { input: Box::new(io::stdin()), output: Box::new(io::stdout()) }
    }
}

/// A stream with several holders.
pub struct Shared<T>(Rc<RefCell<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: Default> Shared<T> {
    /// What is in it, which is taken out.
    pub fn take(&self) -> T {
        self.0.take()
    }
}

impl<T> Shared<T> {
    pub fn new(stream: T) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }
}

impl<T: Read> Read for Shared<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl<T: Write> Write for Shared<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}
