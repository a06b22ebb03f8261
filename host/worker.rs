//! Which data-path worker the current thread is. Pools and policy instances are sharded by it, so that calls on
//! different workers share no lock.

use std::cell::Cell;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// 0-based index of the worker; control tasks share the last index, one past the workers'.
pub fn index() -> usize {
    INDEX.get()
}

/// Called once by each thread that runs calls.
pub fn set(index: usize) {
    INDEX.set(index);
}
