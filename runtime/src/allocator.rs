//! The system's allocator, for a process that holds thousands of small things for a long time.

/// Has the allocator share its memory between as many places as there are processors, and not eight times as many: what is freed in
/// one is not there for another, and with a place for nearly each thread much of a worker's memory was of nobody's use. To be called
/// before there are threads. It does nothing where the allocator is another than glibc's.
pub fn few_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = libc::c_int::try_from(processors.max(2)).unwrap_or(libc::c_int::MAX);
        #[expect(unsafe_code, reason = "the allocator takes its settings by a call of C's")]
        // SAFETY: it takes two numbers and keeps one of them; the option is one that glibc knows, and any number is good for it.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}
