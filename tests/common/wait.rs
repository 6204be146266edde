//! Waiting for a condition, never for a time.

use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks at a condition that nothing announces.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; panics with `what` after `timeout`.
#[track_caller]
pub(crate) fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < until, "not within {timeout:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The same for a condition that must be awaited.
pub(crate) async fn wait_until_async<F>(what: &str, timeout: Duration, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let look = async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(timeout, look).await.is_ok(), "not within {timeout:?}: {what}");
}

/// Runs a future to its end on a thread of its own, so that it works inside and outside a runtime.
pub(crate) fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(future)
        });
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
