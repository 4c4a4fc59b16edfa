//! How buffers grow without passing their bound.

/// Appends the bytes. The capacity doubles as that of a `Vec` does, but never beyond `bytes_max` unless the
/// bytes need it: plain doubling could hold nearly twice the bound.
pub(crate) fn append(buffer: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let doubled = (buffer.capacity() * 2).min(bytes_max);
        buffer.reserve_exact(needed.max(doubled) - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The capacity after each of the appended lengths.
    fn capacities(bytes_max: usize, lengths: &[usize]) -> Vec<usize> {
        let mut buffer = Vec::new();
        let append = |length: &usize| {
            append(&mut buffer, &vec![7; *length], bytes_max);
            buffer.capacity()
        };
        lengths.iter().map(append).collect()
    }

    #[test]
    fn capacity_doubles_up_to_the_bound_and_beyond_it_only_as_needed() {
        assert_eq!(capacities(100, &[10, 1, 9, 1]), [10, 20, 20, 40]);
        assert_eq!(capacities(100, &[10, 25]), [10, 35]);
        assert_eq!(capacities(100, &[60, 1, 39]), [60, 100, 100]);
        assert_eq!(capacities(100, &[60, 60]), [60, 120]);
    }

    #[test]
    fn appended_bytes_keep_their_order() {
        let mut buffer = vec![1, 2];
        append(&mut buffer, &[3, 4], 3);
        append(&mut buffer, &[], 3);
        assert_eq!(buffer, [1, 2, 3, 4]);
    }
}
