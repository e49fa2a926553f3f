//! What only a kernel could honour (keep-alive, buffers, hops): kept and told again.

/// What a kernel's TCP socket would be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpOptions {
    pub keep_alive: bool,
    pub idle_nanoseconds: u64,
    pub interval_nanoseconds: u64,
    pub count: u32,
    pub hop_limit: u8,
    pub receive_buffer: u64,
    pub send_buffer: u64,
}

impl Default for TcpOptions {
    /// As Linux has them.
    fn default() -> Self {
        Self {
            keep_alive: false,
            idle_nanoseconds: 7_200_000_000_000,
            interval_nanoseconds: 75_000_000_000,
            count: 9,
            hop_limit: 64,
            receive_buffer: 64 * 1024,
            send_buffer: 64 * 1024,
        }
    }
}

/// What a kernel's UDP socket would be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct UdpOptions {
    pub hop_limit: u8,
    pub receive_buffer: u64,
    pub send_buffer: u64,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { hop_limit: 64, receive_buffer: 64 * 1024, send_buffer: 64 * 1024 }
    }
}

/// Refuses a value that must be more than nothing.
pub(super) fn positive<T: PartialEq + Default, E>(value: T, refused: E) -> Result<T, E> {
    if value == T::default() { Err(refused) } else { Ok(value) }
}
