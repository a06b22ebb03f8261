//! How totals are stored: a block is a version byte, then the series one after the other, each its label values
//! (length and bytes) and its five sums; all numbers are LEB128, as in WebAssembly itself.

use super::Totals;

const VERSION: u8 = 1;

pub fn encode<'a>(series: impl Iterator<Item = (&'a [String], &'a Totals)>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for (labels, totals) in series {
        for label in labels {
            number(&mut bytes, label.len() as u64);
            bytes.extend_from_slice(label.as_bytes());
        }
        for sum in totals.0 {
            number(&mut bytes, sum);
        }
    }
    bytes
}

/// `None` when `bytes` is not a block whose series have `labels` label values each.
pub fn decode(bytes: &[u8], labels: usize) -> Option<Vec<(Vec<String>, Totals)>> {
    let (&VERSION, mut rest) = bytes.split_first()? else { return None };
    let mut series = Vec::new();
    while !rest.is_empty() {
        let values = (0..labels).map(|_| text(&mut rest)).collect::<Option<_>>()?;
        let mut totals = Totals::default();
        for sum in &mut totals.0 {
            *sum = read_number(&mut rest)?;
        }
        series.push((values, totals));
    }
    Some(series)
}

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(read_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let series = vec![
            (vec!["github".to_owned(), String::new()], Totals([0, 1, 127, 128, u64::MAX])),
            (vec!["ä".repeat(100), "x".to_owned()], Totals([300, 2, 3, 4, 5])),
        ];
        let bytes = encode(series.iter().map(|(labels, totals)| (labels.as_slice(), totals)));
        assert_eq!(decode(&bytes, 2), Some(series));
        assert_eq!(decode(&encode(std::iter::empty()), 2), Some(vec![]));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let labels = ["a".to_owned()];
        let bytes = encode([(&labels[..], &Totals([1, 2, 3, 4, 5]))].into_iter());
        for cut in 2..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 1), None, "{cut}");
        }
        assert_eq!(decode(&[2], 1), None, "a later version");
        assert_eq!(decode(&[], 1), None);
        assert_eq!(decode(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], 1), None, "a length beyond the end");
    }
}
