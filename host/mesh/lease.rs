//! The lease of a registered instance, and the sweep that ends leases. A lease lives on heartbeats alone: probes
//! and calls that succeed do not prolong it.

use std::time::Duration;

use thiserror::Error;

use super::time::Mono;

/// Fewest live leases for which the mass-expiry guard judges a sweep.
pub const GUARDED_LEASES_MIN: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    pub suspect_after: Duration,
    pub ttl: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { suspect_after: Duration::from_secs(60), ttl: Duration::from_secs(120) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeasePhase {
    Active,
    /// No heartbeat for [`LeaseTimes::suspect_after`].
    Suspect,
    Expired,
    /// Read from the store after a restart: not routed to before one good probe.
    Restored,
}

impl LeasePhase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Expired => "expired",
            Self::Restored => "restored",
        }
    }
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the lease has expired; register again")]
pub struct LeaseGone;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    phase: LeasePhase,
    epoch: u64,
    renewed_at: Mono,
    /// Since when the mass-expiry guard holds the lease. Stays until a renewal, so that no lease is held twice
    /// in a row.
    held_at: Option<Mono>,
}

impl Lease {
    pub fn granted(now: Mono) -> Self {
        Self { phase: LeasePhase::Active, epoch: 1, renewed_at: now, held_at: None }
    }

    /// A stored lease after a restart. It gets a whole TTL, because nobody could renew it while the proxy was away.
    pub fn restored(now: Mono, epoch: u64) -> Self {
        Self { phase: LeasePhase::Restored, epoch, renewed_at: now, held_at: None }
    }

    /// A lease that had run out before the restart.
    pub fn expired(now: Mono, epoch: u64) -> Self {
        Self { phase: LeasePhase::Expired, ..Self::restored(now, epoch) }
    }

    pub fn phase(&self) -> LeasePhase {
        self.phase
    }

    /// Number of the registration that holds now: 1 for the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn renewed_at(&self) -> Mono {
        self.renewed_at
    }

    /// Whether the mass-expiry guard keeps this lease past its end.
    pub fn is_held(&self) -> bool {
        self.held_at.is_some() && self.phase != LeasePhase::Expired
    }

    /// Answers the new phase when the heartbeat changed it. A Restored lease stays what it is.
    ///
    /// # Errors
    /// The lease has expired: only a new registration brings the instance back.
    pub fn heartbeat(&mut self, now: Mono) -> Result<Option<LeasePhase>, LeaseGone> {
        if self.phase == LeasePhase::Expired {
            return Err(LeaseGone);
        }
        self.renew(now);
        Ok((self.phase == LeasePhase::Suspect).then(|| self.enter(LeasePhase::Active)))
    }

    /// The first good probe of a restored instance. It counts as its first renewal in this process, so that an
    /// instance that came back late has a whole TTL for its heartbeat.
    pub fn proved(&mut self, now: Mono) -> Option<LeasePhase> {
        if self.phase != LeasePhase::Restored {
            return None;
        }
        self.renew(now);
        Some(self.enter(LeasePhase::Active))
    }

    /// The same name again, from whoever may use it: a new epoch, whatever the phase was.
    pub fn reregister(&mut self, now: Mono) {
        self.renew(now);
        self.epoch = self.epoch.saturating_add(1);
        self.phase = LeasePhase::Active;
    }

    /// The phase that time alone demands now; `None` when the present one stands.
    pub fn due(&self, now: Mono, times: &LeaseTimes) -> Option<LeasePhase> {
        if self.phase == LeasePhase::Expired {
            return None;
        }
        let counted_from = self.held_at.map_or(self.renewed_at, |held| held.max(self.renewed_at));
        if now.since(counted_from) >= times.ttl {
            return Some(LeasePhase::Expired);
        }
        let silent = now.since(self.renewed_at) >= times.suspect_after;
        (silent && self.phase == LeasePhase::Active).then_some(LeasePhase::Suspect)
    }

    fn renew(&mut self, now: Mono) {
        // Two heartbeats may be handled in the other order than their times were taken.
        self.renewed_at = self.renewed_at.max(now);
        self.held_at = None;
    }

    fn enter(&mut self, phase: LeasePhase) -> LeasePhase {
        self.phase = phase;
        phase
    }
}

/// What one sweep changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep<K> {
    pub transitions: Vec<(K, LeasePhase)>,
    /// Leases that were to expire and were given one more TTL by this sweep. Not empty: raise an alert.
    pub held: Vec<K>,
}

/// Moves every lease to the phase that is due. When more than half of at least [`GUARDED_LEASES_MIN`] live leases
/// are to expire at once, the proxy is likelier at fault than the fleet: those not held since their last renewal
/// are held, as Suspect when they were Active.
pub fn sweep<K: Clone>(leases: &mut [(K, &mut Lease)], now: Mono, times: &LeaseTimes) -> Sweep<K> {
    let expires = |lease: &Lease| lease.due(now, times) == Some(LeasePhase::Expired);
    let live = leases.iter().filter(|(_, lease)| lease.phase != LeasePhase::Expired).count();
    let ending = leases.iter().filter(|(_, lease)| expires(lease)).count();
    let guarded = live >= GUARDED_LEASES_MIN && ending * 2 > live;

    let mut sweep = Sweep { transitions: Vec::new(), held: Vec::new() };
    for (key, lease) in leases {
        if guarded && lease.held_at.is_none() && expires(lease) {
            lease.held_at = Some(now);
            sweep.held.push(key.clone());
        }
        if let Some(phase) = lease.due(now, times) {
            sweep.transitions.push((key.clone(), lease.enter(phase)));
        }
    }
    sweep
}

#[cfg(test)]
mod tests;
