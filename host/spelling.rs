//! What somebody probably meant who wrote a word that there is not.

/// Words that are listed when none of them is near.
const LISTED_MAX: usize = 12;

/// A word that differs by a slip or two.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let slips_max = (word.chars().count() / 3).max(1);
    let slips = |known: &&str| strsim::damerau_levenshtein(word, known);
    let nearest = known.iter().copied().min_by_key(slips)?;
    (slips(&nearest) <= slips_max).then_some(nearest)
}

/// `there is no WHAT `WORD` here`, and what was meant, or what there is.
pub fn no_such(what: &str, word: &str, known: &[&str]) -> String {
    match (nearest(word, known), known) {
        (Some(meant), _) => format!("there is no {what} `{word}` here; did you mean `{meant}`?"),
        (None, []) => format!("there is no {what} `{word}` here"),
        (None, known) => {
            let more = if known.len() > LISTED_MAX { " and more" } else { "" };
            let listed = known[..known.len().min(LISTED_MAX)].join("`, `");
            format!("there is no {what} `{word}` here; there are `{listed}`{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_nonsense_the_list() {
        let known = ["command", "args", "env"];
        assert_eq!(nearest("comand", &known), Some("command"));
        assert_eq!(nearest("ars", &known), Some("args"));
        assert_eq!(nearest("something", &known), None);
        assert_eq!(no_such("setting", "x", &[]), "there is no setting `x` here");
        assert!(no_such("setting", "something", &known).ends_with("there are `command`, `args`, `env`"));
    }
}
