//! What each member of a pool is worth: how often it is drawn, and what it costs besides its latency and load.
//!
//! The host follows the plan with the peak-EWMA power of two choices (as in Finagle and linkerd2): two members are
//! drawn by their share, and the one whose expected wait is lower takes the call. With a zone of its own, the first
//! of the two is always drawn from that zone while it has a member that can be used; calls spill over when a member
//! elsewhere is cheaper even after the penalty.

use crate::settings::Settings;

/// A member as the host announced it, and its last score; 0 is not routed to.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub zone: &'a str,
    pub weight: u16,
    pub score: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub share: u32,
    pub price: f32,
    pub first: bool,
}

/// One choice for each member in order; nothing when no member can take calls.
pub fn choices(members: &[Member<'_>], settings: &Settings) -> Option<Vec<Choice>> {
    let at_home = |member: &Member<'_>| settings.zone.as_deref() == Some(member.zone);
    let usable = |member: &Member<'_>| share(member) > 0;
    if !members.iter().any(usable) {
        return None;
    }
    let prefers =
        settings.zone_penalty > 1.0 && members.iter().any(|member| at_home(member) && usable(member));
    let choice = |member: &Member<'_>| {
        let (share, foreign) = (share(member), prefers && !at_home(member));
        let penalty = if foreign { settings.zone_penalty } else { 1.0 };
        Choice { share, price: (penalty / f64::from(share.max(1))) as f32, first: prefers && !foreign }
    };
    Some(members.iter().map(choice).collect())
}

/// What a member gets in relation to others. A degraded instance (score under 80) has a quarter of its weight, as
/// in the host's own health states; one under 50 is left in the pool only in need, and gets a twentieth.
fn share(member: &Member<'_>) -> u32 {
    let health = match member.score {
        80.. => 20,
        50.. => 5,
        1.. => 1,
        0 => 0,
    };
    u32::from(member.weight) * health
}

/// Plans for a pool whose right answers are known.
///
/// # Errors
/// The first choice that is wrong.
pub fn self_test() -> Result<(), String> {
    let settings = Settings { zone: Some("here".into()), ..Settings::default() };
    let member = |zone, score| Member { zone, weight: 100, score };
    let Some(plan) = choices(&[member("here", 100), member("there", 100), member("there", 0)], &settings)
    else {
        return Err("a pool with members that can take calls was left to others".into());
    };
    if plan.iter().map(|choice| choice.first).collect::<Vec<_>>() != [true, false, false] {
        return Err("the own zone is not preferred".into());
    }
    if plan[1].price <= plan[0].price || plan[2].share != 0 {
        return Err(format!("shares and prices are wrong: {plan:?}"));
    }
    if choices(&[member("here", 0)], &settings).is_some() {
        return Err("a pool in which nobody can take calls was planned for".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
