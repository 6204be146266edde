//! Memory that is used again: fresh memory costs a page fault for each 4 KiB, which takes longer than copying into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one purpose that nobody uses at the moment. There are never more than were in use at once.
#[derive(Debug, Clone)]
pub(super) struct Spare {
    capacity: usize,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Spare {
    /// Buffers of this capacity; none yet.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, buffers: Arc::default() }
    }

    /// An empty buffer, used before if there is one.
    pub(super) fn take(&self) -> Vec<u8> {
        let spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(self.capacity))
    }

    /// Keeps a buffer for the next who takes one.
    pub(super) fn keep(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }

    /// Keeps the memory of these bytes, unless somebody else still holds them.
    pub(super) fn keep_bytes(&self, bytes: Bytes) {
        if let Ok(memory) = bytes.try_into_mut() {
            self.keep(memory.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_empty_unless_it_is_still_held() {
        let spare = Spare::new(100);
        let mut buffer = spare.take();
        buffer.extend_from_slice(b"page");
        let place = buffer.as_ptr();
        let bytes = Bytes::from(buffer);
        let held = bytes.clone();
        spare.keep_bytes(bytes);
        let other = spare.take();
        assert_ne!(other.as_ptr(), place, "another holds it");
        spare.keep_bytes(held);
        let again = spare.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, 100));
    }
}
