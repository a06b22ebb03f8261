//! Calls wait for their turn where instances are full.

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::attempt::{Attempt, Run};
use super::failure::CallFailure;
use super::pick::{Excluded, Question};
use crate::mesh::limit::{Shed, Waited};
use crate::registry::{Instance, Line, Place, Takers};

/// Whether all the room is for those who were called: who waits is before who comes.
pub(super) fn is_taken(line: &Line, room: impl Fn() -> u32) -> bool {
    let called = line.called();
    called > 0 && room() <= called
}

impl Run<'_> {
    /// Waits until an instance that could take the call is not full any more.
    pub(super) async fn wait<'l>(
        &'l self,
        question: &Question<'_>,
        tried: &Excluded,
        place: &mut Option<Place<'l>>,
        account: &mut Account,
    ) -> Result<(), CallFailure> {
        let service = self.target.service();
        let (mut places, mut latency_us, mut count) = (0_u32, 0_u64, 0_u64);
        for live in question.takers(tried).map(|instance| &instance.core.live) {
            places = places.saturating_add(live.limit());
            latency_us += u64::from(live.ewma_us());
            count += 1;
        }
        let pace = (places, Duration::from_micros(latency_us / count.max(1)));
        let for_whom = (question.waits_for(tried), pace);
        self.stand(&service.core.line, place, for_whom, account, || question.openings(tried)).await
    }

    /// Takes a place at the one instance that can take the call, once there is one.
    pub(super) async fn enter_at(
        &self,
        instance: &Arc<Instance>,
        account: &mut Account,
    ) -> Result<Attempt, CallFailure> {
        let (live, line) = (&instance.core.live, &instance.core.line);
        let room = || if live.is_full() { 0 } else { live.limit().saturating_sub(live.in_flight()).max(1) };
        let mut place: Option<Place<'_>> = None;
        loop {
            if (place.is_some() || !is_taken(line, room))
                && let Some(mut attempt) = Attempt::try_begin(instance, None)
            {
                attempt.may_be_trial();
                if let Some(place) = place {
                    place.enter(room);
                }
                return Ok(attempt);
            }
            let pace = (live.limit(), Duration::from_micros(live.ewma_us().into()));
            let for_whom = (Takers::from_iter([instance.slot]), pace);
            self.stand(line, &mut place, for_whom, account, room).await?;
        }
    }

    /// Waits for its turn in the line, in its place there or else at the end.
    async fn stand<'l>(
        &self,
        line: &'l Line,
        place: &mut Option<Place<'l>>,
        (takers, pace): (Takers, (u32, Duration)),
        account: &mut Account,
        room: impl Fn() -> u32,
    ) -> Result<(), CallFailure> {
        let waited = async {
            let place = match place {
                Some(place) => place,
                None => place.insert(line.join(takers, pace, self.times.deadline, &self.limits)?),
            };
            place.turn(room).await
        };
        let waited = waited.await;
        account.waited(match waited {
            Ok(waited) => waited,
            Err(Shed::Waited(time)) => Waited { time, ..Waited::default() },
            Err(_) => Waited::default(),
        });
        let service = &self.target.service().name;
        waited.map(drop).map_err(|shed| CallFailure::Shed { service: service.to_string(), shed })
    }
}
