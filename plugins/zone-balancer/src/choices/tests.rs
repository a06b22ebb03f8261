use super::*;

const WELL: Member<'_> = Member { zone: "", weight: 100, score: 100 };

fn planned(members: &[Member<'_>], settings: &Settings) -> Vec<(u32, f32, bool)> {
    let choices = choices(members, settings).expect("a plan");
    // In relation to a member that is well.
    let relative = |choice: Choice| (choice.share, choice.price * 2_000.0, choice.first);
    choices.into_iter().map(relative).collect()
}

#[test]
fn a_pool_in_which_nobody_can_take_calls_is_left_to_others() {
    let settings = Settings::default();
    assert_eq!(choices(&[], &settings), None);
    assert_eq!(choices(&[Member { score: 0, ..WELL }, Member { weight: 0, ..WELL }], &settings), None);
}

#[test]
fn weight_and_health_make_the_share_and_the_price_is_its_inverse() {
    let members = [
        WELL,
        Member { weight: 300, ..WELL },
        Member { score: 60, ..WELL },
        Member { score: 10, ..WELL },
        Member { score: 0, ..WELL },
    ];
    let planned = planned(&members, &Settings::default());
    let shares: Vec<_> = planned.iter().map(|(share, ..)| *share).collect();
    assert_eq!(shares, [2_000, 6_000, 500, 100, 0]);
    let prices = [1.0, 1.0 / 3.0, 4.0, 20.0];
    assert!(
        planned.iter().zip(prices).all(|((_, price, _), wanted)| (price - wanted).abs() < 1e-4),
        "{planned:?}"
    );
    assert!(planned.iter().all(|(.., first)| !first), "zones are alike");
}

#[test]
fn members_elsewhere_are_dearer_while_the_own_zone_can_serve() {
    let settings = Settings { zone: Some("a".into()), zone_penalty: 3.0, ..Settings::default() };
    let [here, there] = ["a", "b"].map(|zone| Member { zone, ..WELL });
    assert_eq!(planned(&[here, there], &settings), [(2_000, 1.0, true), (2_000, 3.0, false)]);
    let down = Member { score: 0, ..here };
    assert_eq!(planned(&[down, there], &settings)[1], (2_000, 1.0, false));
    let alike = Settings { zone_penalty: 1.0, ..settings };
    assert_eq!(planned(&[here, there], &alike), [(2_000, 1.0, false); 2]);
}

#[test]
fn the_self_test_passes() {
    assert_eq!(self_test(), Ok(()));
}
