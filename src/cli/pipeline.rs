//! Reading, computing and writing at the same time, over a fixed ring of buffers: memory stays flat however long
//! the input is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Time spent inside each stage. Stages overlap and waits count nowhere, so the sum may exceed the wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Inside `read`.
    pub read: Duration,
    /// Inside `compute`.
    pub compute: Duration,
    /// Inside `write`.
    pub write: Duration,
}

/// Why a pipeline ended early.
#[derive(Debug, PartialEq, Eq)]
pub enum Halt<E> {
    /// The stop flag was raised.
    Stopped,
    /// A stage failed. Of several failures it is the one of the earliest block, whichever stage came first.
    Failed(E),
}

/// Sends every buffer round the ring `read` -> `compute` -> `write`, until `read` says that there is no more.
///
/// `read` fills a buffer and returns true, or returns false at the end of the input. Blocks pass every stage in
/// order, each stage one block at a time. `read` and `write` run on threads of their own, `compute` on the caller's.
/// The number of buffers bounds the memory; three keep all stages busy, a fourth evens out their jitter.
///
/// # Errors
/// - [`Halt::Failed`] with the error of the earliest block that failed.
/// - [`Halt::Stopped`] where `stop` was raised before the last block was written; it is looked at between blocks.
pub fn run<B: Send, E: Send>(
    buffers: Vec<B>,
    stop: &AtomicBool,
    mut read: impl FnMut(&mut B) -> Result<bool, E> + Send,
    compute: impl FnMut(&mut B) -> Result<(), E>,
    write: impl FnMut(&mut B) -> Result<(), E> + Send,
) -> Result<Times, Halt<E>> {
    let (to_free, free) = channel::<B>();
    let (to_compute, filled) = channel::<B>();
    let (to_write, computed) = channel::<B>();
    for buffer in buffers {
        // Cannot fail: `free` lives until the end of this function.
        let _ = to_free.send(buffer);
    }
    let (reading, computing, writing) = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut stage = Stage::default();
            // Ends when the writer is gone, that is after a failure: nobody hands buffers back then.
            while let Ok(mut buffer) = free.recv() {
                match stage.time(stop, || read(&mut buffer)) {
                    Some(true) if to_compute.send(buffer).is_ok() => {}
                    _ => break,
                }
            }
            stage
        });
        let writer = scope.spawn(move || Stage::drain(computed, to_free, stop, write));
        let computing = Stage::drain(filled, to_write, stop, compute);
        (reader.join(), computing, writer.join())
    });
    // A stage that panicked goes on panicking here.
    let reading = reading.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let writing = writing.unwrap_or_else(|panic| std::panic::resume_unwind(panic));

    let stopped = reading.stopped || computing.stopped || writing.stopped;
    let times = Times { read: reading.spent, compute: computing.spent, write: writing.spent };
    let failures = [writing.failure, computing.failure, reading.failure].into_iter().flatten();
    match failures.min_by_key(|(block, _)| *block) {
        Some((_, error)) => Err(Halt::Failed(error)),
        None if stopped => Err(Halt::Stopped),
        None => Ok(times),
    }
}

/// What one stage did.
struct Stage<E> {
    blocks: usize,
    spent: Duration,
    stopped: bool,
    failure: Option<(usize, E)>,
}

impl<E> Default for Stage<E> {
    fn default() -> Self {
        Stage { blocks: 0, spent: Duration::ZERO, stopped: false, failure: None }
    }
}

impl<E> Stage<E> {
    /// Does the work of one block, unless the flag is up. None ends the stage.
    fn time<T>(&mut self, stop: &AtomicBool, work: impl FnOnce() -> Result<T, E>) -> Option<T> {
        if stop.load(Ordering::Relaxed) {
            self.stopped = true;
            return None;
        }
        let start = Instant::now();
        let result = work();
        self.spent += start.elapsed();
        match result {
            Ok(value) => {
                self.blocks += 1;
                Some(value)
            }
            Err(error) => {
                self.failure = Some((self.blocks, error));
                None
            }
        }
    }

    /// Works on everything that comes in and hands it on.
    fn drain<B>(
        from: Receiver<B>,
        to: Sender<B>,
        stop: &AtomicBool,
        mut work: impl FnMut(&mut B) -> Result<(), E>,
    ) -> Self {
        let mut stage = Stage::default();
        while let Ok(mut buffer) = from.recv() {
            if stage.time(stop, || work(&mut buffer)).is_none() {
                break;
            }
            // The next stage may be gone because the input ended (the reader) or because it failed (the writer).
            // The one is no reason to stop; the other shows in its own result.
            let _ = to.send(buffer);
        }
        stage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    /// Reads the numbers 0..n, squares them, and returns what was written.
    fn squares(n: usize, buffers: usize) -> Vec<usize> {
        let (mut next, written) = (0, Mutex::new(Vec::new()));
        let read = |b: &mut usize| {
            *b = next;
            next += 1;
            Ok::<_, ()>(*b < n)
        };
        let write = |b: &mut usize| {
            written.lock().unwrap().push(*b);
            Ok(())
        };
        let compute = |b: &mut usize| {
            *b *= *b;
            Ok(())
        };
        run(vec![0; buffers], &AtomicBool::new(false), read, compute, write).unwrap();
        written.into_inner().unwrap()
    }

    #[test]
    fn blocks_arrive_in_order_with_any_number_of_buffers() {
        for buffers in 1..5 {
            assert_eq!(squares(100, buffers), (0..100).map(|i| i * i).collect::<Vec<_>>());
            assert_eq!(squares(0, buffers), Vec::<usize>::new());
            assert_eq!(squares(1, buffers), [0]);
        }
    }

    #[test]
    fn the_failure_of_the_earliest_block_wins() {
        // The reader fails in block 3 long before the writer gets to fail in block 1.
        let mut next = 0;
        let read = |b: &mut usize| {
            *b = next;
            next += 1;
            if *b == 3 { Err("read 3") } else { Ok(true) }
        };
        let write = |b: &mut usize| {
            std::thread::sleep(Duration::from_millis(20));
            if *b == 1 { Err("write 1") } else { Ok(()) }
        };
        let halt = run(vec![0; 4], &AtomicBool::new(false), read, |_| Ok(()), write);
        assert_eq!(halt, Err(Halt::Failed("write 1")));
    }

    #[test]
    fn a_failing_stage_ends_the_others_without_reading_the_rest() {
        let read_blocks = AtomicUsize::new(0);
        let read = |_: &mut ()| Ok(read_blocks.fetch_add(1, Ordering::Relaxed) < 1_000_000);
        let halt = run(vec![(); 3], &AtomicBool::new(false), read, |_| Err("compute"), |_| Ok(()));
        assert_eq!(halt, Err(Halt::Failed("compute")));
        assert!(read_blocks.into_inner() <= 4);
    }

    #[test]
    fn the_stop_flag_ends_an_endless_input() {
        let stop = AtomicBool::new(false);
        let mut left = 10;
        let write = |_: &mut ()| {
            left -= 1;
            stop.store(left == 0, Ordering::Relaxed);
            Ok::<_, ()>(())
        };
        assert_eq!(run(vec![(); 3], &stop, |_| Ok(true), |_| Ok(()), write), Err(Halt::Stopped));
    }

    #[test]
    fn times_count_work_and_not_waiting() {
        let mut left = 3;
        let read = |_: &mut ()| {
            std::thread::sleep(Duration::from_millis(30));
            left -= 1;
            Ok::<_, ()>(left >= 0)
        };
        let times = run(vec![(); 3], &AtomicBool::new(false), read, |_| Ok(()), |_| Ok(())).unwrap();
        assert!(times.read >= Duration::from_millis(120), "{times:?}");
        assert!(times.compute < Duration::from_millis(30) && times.write < Duration::from_millis(30), "{times:?}");
    }
}
