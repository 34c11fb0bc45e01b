//! A thread team for regions of 10 to 100 µs: cheap to fork, cheap to join.
//!
//! A forward pass is some dozens of short parallel regions with almost nothing between them, so
//! members wait for the next region by spinning for a bounded time and park only then. A region is
//! a number of tasks that members claim one by one: a member that the system holds up delays nobody
//! but the task it is in, and a member that is still asleep when the region ends is not waited for.
//!
//! A team runs one region at a time. A second caller (another thread of the same session, or a task
//! that forks again) runs its region alone, on its own thread; results are the same.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a member spins before it parks: the gap between two regions of a forward pass is far
/// shorter, the gap between two requests longer.
const SPIN: Duration = Duration::from_micros(60);

/// A number of threads, the caller's included.
pub(crate) struct Team {
    threads: usize,
    /// Started by the first region that needs them, so that small work never pays for them.
    members: OnceLock<Members>,
    busy: Mutex<()>,
}

struct Members {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

/// What the caller and the members share.
struct Shared {
    /// Bit 0: a region is open to join. The rest: members inside it, times two.
    state: AtomicUsize,
    /// Counts regions, so that a member can tell a new one from the one it has left.
    epoch: AtomicUsize,
    /// The region. Written only while `state` is 0, read only by members inside.
    region: Mutex<Option<Region>>,
    /// The region's next task that nobody has claimed.
    next: AtomicUsize,
    /// The first panic of a task in the region.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// The caller, to be woken when it has parked and the last member leaves.
    caller: Mutex<Option<Thread>>,
    /// Which members have parked.
    parked: Vec<AtomicBool>,
    quit: AtomicBool,
}

const OPEN: usize = 1;
const MEMBER: usize = 2;

/// A number of tasks.
#[derive(Clone, Copy)]
struct Region {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the task is `Sync`, and `Members::run` keeps it alive until every member has left.
unsafe impl Send for Region {}

impl Team {
    /// A team of `threads` threads. The members start with the first region that needs them.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            members: OnceLock::new(),
            busy: Mutex::new(()),
        }
    }

    /// Threads, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task(0)`, …, `task(tasks − 1)`, each once, on the team's threads in any order; returns
    /// when all are done. A panic of a task is the caller's.
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks > 1
            && self.threads > 1
            && let Ok(_guard) = self.busy.try_lock()
        {
            let members = self
                .members
                .get_or_init(|| Members::start(self.threads - 1));
            return members.run(tasks, task);
        }
        (0..tasks).for_each(task);
    }
}

impl Members {
    fn start(count: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            region: Mutex::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            caller: Mutex::new(None),
            parked: (0..count).map(|_| AtomicBool::new(false)).collect(),
            quit: AtomicBool::new(false),
        });
        let start = |index| {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name(format!("bertha-{}", index + 1));
            builder.spawn(move || shared.member(index))
        };
        // Where the system refuses a thread, the team is smaller: the work gets done all the same.
        let handles = (0..count).map_while(|index| start(index).ok()).collect();
        Self { shared, handles }
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        let task: *const (dyn Fn(usize) + Sync + '_) = task;
        // SAFETY: only the lifetime changes; no member is inside the region when `run` returns.
        let task = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) + Sync + '_),
                *const (dyn Fn(usize) + Sync + 'static),
            >(task)
        };
        let region = Region { task, tasks };
        *lock(&shared.region) = Some(region);
        shared.next.store(0, Ordering::Relaxed);
        shared.state.store(OPEN, Ordering::SeqCst);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        let wanted = self.handles.len().min(tasks - 1);
        for (handle, parked) in self.handles.iter().zip(&shared.parked).take(wanted) {
            if parked.swap(false, Ordering::SeqCst) {
                handle.thread().unpark();
            }
        }
        shared.work(region);
        shared.close();
        let panic = lock(&shared.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// Claims tasks until none is left.
    fn work(&self, region: Region) {
        let run = || {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= region.tasks {
                    return;
                }
                // SAFETY: whoever works is the caller, which owns the closure, or a member inside
                // the region, for which the caller waits before it lets go of the closure.
                unsafe { (*region.task)(task) }
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            // The others stop claiming; the caller goes on panicking once all have left.
            self.next.fetch_max(region.tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }

    /// Ends the region: nobody can join any more, and those inside are waited for.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        if spin_until(|| self.state.load(Ordering::Acquire) == 0) {
            return;
        }
        *lock(&self.caller) = Some(thread::current());
        while self.state.load(Ordering::SeqCst) != 0 {
            thread::park();
        }
        *lock(&self.caller) = None;
    }

    /// The life of a member.
    fn member(&self, index: usize) {
        let mut seen = 0;
        loop {
            let fresh = || self.epoch.load(Ordering::Acquire) != seen || self.quits();
            if !spin_until(fresh) {
                self.parked[index].store(true, Ordering::SeqCst);
                // Whoever opens a region now sees the flag; whoever did before, we see.
                while !(self.epoch.load(Ordering::SeqCst) != seen || self.quits()) {
                    thread::park();
                }
                self.parked[index].store(false, Ordering::SeqCst);
            }
            if self.quits() {
                return;
            }
            seen = self.epoch.load(Ordering::SeqCst);
            if self.join() {
                let region = *lock(&self.region);
                if let Some(region) = region {
                    self.work(region);
                }
                self.leave();
            }
        }
    }

    /// Enters the open region, if one is open.
    fn join(&self) -> bool {
        let enter = |state| (state & OPEN == OPEN).then_some(state + MEMBER);
        self.state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter)
            .is_ok()
    }

    fn leave(&self) {
        // The last one out of a closed region wakes the caller if it sleeps.
        if self.state.fetch_sub(MEMBER, Ordering::SeqCst) == MEMBER
            && let Some(caller) = &*lock(&self.caller)
        {
            caller.unpark();
        }
    }

    fn quits(&self) -> bool {
        self.quit.load(Ordering::Acquire)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            // A member catches the panics of tasks, so it has none to report.
            let _ = handle.join();
        }
    }
}

/// Spins for a bounded time until a condition holds, and says whether it does.
fn spin_until(condition: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..64 {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        // The clock is read only once the wait has proved not to be a short one.
        let start = start.get_or_insert_with(Instant::now);
        if start.elapsed() > SPIN {
            return condition();
        }
    }
}

/// No task runs under these locks, so a poisoned one guards nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let team = Team::new(threads);
            assert_eq!(team.threads(), threads);
            for round in 0..500 {
                let tasks = round % 37;
                let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts
                        .iter()
                        .all(|count| count.load(Ordering::Relaxed) == 1)
                );
            }
        }
    }

    #[test]
    fn members_that_parked_come_back() {
        let team = Team::new(3);
        for _ in 0..5 {
            thread::sleep(4 * SPIN);
            let sum = AtomicUsize::new(0);
            team.run(100, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn regions_inside_regions_and_of_several_callers_finish() {
        let team = Team::new(4);
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.run(4, &|_| {
                            team.run(5, &|i| {
                                sum.fetch_add(i, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 50 * 4 * 10);
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3);
        for bad in [0, 7, 63] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.run(64, &|i| assert!(i != bad, "task {i}"));
            }));
            assert!(result.is_err());
            let ran = AtomicUsize::new(0);
            team.run(64, &|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 64);
        }
    }
}
