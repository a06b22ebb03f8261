//! A process that somebody else started: its end is noticed, and it is never signalled.

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

/// Known by a descriptor, which no later process of the same number can take.
#[derive(Debug)]
pub struct Foreign(#[cfg(target_os = "linux")] tokio::io::unix::AsyncFd<OwnedFd>);

impl Foreign {
    /// `None` when it is not there, when too many files are open, and on systems without such descriptors.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "the descriptor must stay the one that is waited for")]
    pub fn of(pid: u32) -> Option<Self> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        use tokio::io::{Interest, unix::AsyncFd};

        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let descriptor = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // SAFETY: the descriptor is owned, never given away and closed only after it was taken out of the wait.
        let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        watched.ok().map(Self)
    }

    #[cfg(not(target_os = "linux"))]
    pub fn of(_pid: u32) -> Option<Self> {
        None
    }

    /// Waits until it has ended, reaped or not.
    pub async fn ended(&self) {
        #[cfg(target_os = "linux")]
        if self.0.readable().await.is_ok() {
            return;
        }
        // Nothing more will be known of it.
        std::future::pending().await
    }
}
