//! Figures as people read them.

use std::error::Error;
use std::time::Duration;

/// The message of an error, then its sources; each once, since some repeat their source.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

pub fn bytes(count: usize) -> String {
    const KIB: f64 = 1024.0;
    let count = count as f64;
    match count {
        _ if count < KIB => format!("{count} bytes"),
        _ if count < KIB * KIB => format!("{:.1} KiB", count / KIB),
        _ => format!("{:.1} MiB", count / KIB / KIB),
    }
}

pub fn duration(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        _ if us < 1.0 => format!("{:.0} ns", us * 1e3),
        _ if us < 100.0 => format!("{us:.2} µs"),
        _ if us < 10_000.0 => format!("{us:.0} µs"),
        _ if us < 1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// The same of microseconds.
pub fn micros(us: f64) -> String {
    duration(Duration::try_from_secs_f64(us / 1e6).unwrap_or_default())
}

/// With a comma between thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns as wide as their widest cell; the last one is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_what_matters() {
        assert_eq!(bytes(17), "17 bytes");
        assert_eq!(bytes(48_211), "47.1 KiB");
        assert_eq!(bytes(18 << 20), "18.0 MiB");
        assert_eq!(duration(Duration::from_nanos(640)), "640 ns");
        assert_eq!(duration(Duration::from_nanos(3_712)), "3.71 µs");
        assert_eq!(duration(Duration::from_millis(41)), "41 ms");
        assert_eq!(thousands(1), "1");
        assert_eq!(thousands(123_456), "123,456");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
