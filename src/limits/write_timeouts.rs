//! How long a client may take to receive what is written to it.

/// Of a larger write, the write timeout counts once more for each so many bytes: of 1 MiB a client on a slow line has
/// received a part by then.
const WRITE_TIMEOUT_BYTES: usize = 256 << 10;

/// How often the write timeout counts for a write of so many bytes.
pub(crate) fn write_timeouts(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / WRITE_TIMEOUT_BYTES).unwrap_or(u32::MAX)
}
