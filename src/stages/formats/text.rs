//! One style for the texts of all data sets: lower case, single blanks,
//! punctuation and short forms (`'s`, `n't`) apart, numbers masked.
//!
//! Knows no data set.

use crate::inference::reference::show;

/// Endings that stand apart from their word.
const SHORT: [&str; 7] = ["n't", "'s", "'m", "'re", "'ve", "'ll", "'d"];
/// Words that keep their full stop.
const ABBREVIATED: [&str; 5] = ["mr", "mrs", "ms", "dr", "st"];
/// What makes a number a word: `8th`, `1960s`.
const ORDINAL: [&str; 6] = ["st", "nd", "rd", "th", "s", "d"];

/// The text in one style, its numbers as they are.
pub(super) fn tidied(text: &str) -> String {
    words(text, &mut None)
}

/// The text in one style with `number0`, `number1`, ... for its numbers, and
/// their values.
pub(super) fn masked(text: &str) -> (String, Vec<f64>) {
    let mut numbers = Some(Vec::new());
    let text = words(text, &mut numbers);
    (text, numbers.unwrap_or_default())
}

/// The text with its numbers where `number0`, `number1`, ... stand.
pub(super) fn unmasked(text: &str, numbers: &[f64]) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find("number") {
        let behind = &rest[at + "number".len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let value = behind[..digits].parse::<usize>().ok().and_then(|k| numbers.get(k));
        out += &rest[..at];
        match value {
            Some(&value) => out += &show(value),
            None => out += &rest[at..at + "number".len() + digits],
        }
        rest = &behind[digits..];
    }
    out + rest
}

/// The text without what the calculator noted in it: `48/2 = <<48/2=24>>24`.
pub(super) fn without_calculations(text: &str) -> String {
    let mut parts = text.split("<<");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| out + part.split_once(">>").map_or(part, |(_, behind)| behind))
}

fn words(text: &str, numbers: &mut Option<Vec<f64>>) -> String {
    let plain: Vec<char> = text.chars().flat_map(char::to_lowercase).map(plain).collect();
    let mut words: Vec<String> = Vec::new();
    for chunk in plain.split(|c| c.is_whitespace()) {
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            let digits = number(rest);
            let used = if digits > 0 {
                let letters = rest[digits..].iter().take_while(|c| c.is_alphabetic()).count();
                let ending: String = rest[digits..digits + letters].iter().collect();
                let written: String = rest[..digits].iter().collect();
                match numbers {
                    Some(numbers) if !ORDINAL.contains(&ending.as_str()) => {
                        words.push(format!("number{}", numbers.len()));
                        let digits_only: String = written.chars().filter(|&c| c != ',').collect();
                        numbers.push(digits_only.parse().unwrap_or(f64::NAN));
                        digits
                    }
                    _ => {
                        words.push(written + &ending);
                        digits + letters
                    }
                }
            } else if first.is_alphanumeric() || is_short(rest) {
                word(rest, &mut words)
            } else {
                words.push(first.to_string());
                1
            };
            rest = &rest[used..];
        }
    }
    words.join(" ")
}

/// Typographic signs as those of a keyboard.
fn plain(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '`' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{a0}' => ' ',
        other => other,
    }
}

/// How many signs make the number that a chunk begins with: `1,080`, `12.50`, `.5`.
fn number(chunk: &[char]) -> usize {
    let digit = |at: usize| chunk.get(at).is_some_and(char::is_ascii_digit);
    let mut at = 0;
    while digit(at)
        || (at > 0
            && chunk.get(at) == Some(&',')
            && (1..=3).all(|k| digit(at + k))
            && !digit(at + 4))
    {
        at += 1;
    }
    if chunk.get(at) == Some(&'.') && digit(at + 1) {
        at += 1;
        while digit(at) {
            at += 1;
        }
    }
    at
}

/// Whether a chunk is a short ending that stands alone, as in `emily 's`.
fn is_short(chunk: &[char]) -> bool {
    let letters = chunk.iter().skip(1).take_while(|c| c.is_alphabetic()).count();
    let start: String = chunk[..=letters].iter().collect();
    SHORT.contains(&start.as_str())
}

/// Takes the word that a chunk begins with; how many signs it has.
fn word(chunk: &[char], words: &mut Vec<String>) -> usize {
    let joins = |at: usize| {
        matches!(chunk[at], '-' | '\'') && chunk.get(at + 1).is_some_and(|c| c.is_alphanumeric())
    };
    let mut at = 1;
    while at < chunk.len() && (chunk[at].is_alphanumeric() || joins(at)) {
        at += 1;
    }
    let mut word: String = chunk[..at].iter().collect();
    if ABBREVIATED.contains(&word.as_str()) && chunk.get(at) == Some(&'.') {
        word.push('.');
        at += 1;
    }
    match SHORT.iter().find_map(|ending| Some((word.strip_suffix(ending)?, ending))) {
        Some((stem, ending)) if !stem.is_empty() => {
            words.extend([stem.to_owned(), (*ending).to_owned()]);
        }
        _ => words.push(word),
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_into_one_style() {
        for (text, want) in [
            ("Mrs. Hilt's  dog didn't eat.", "mrs. hilt 's dog did n't eat ."),
            (
                "Emily 's father did n't (ever) pay, \u{201c}no\u{201d}!",
                "emily 's father did n't ( ever ) pay , \" no \" !",
            ),
            ("a 1-year-old MP3 player", "a 1 - year-old mp3 player"),
            ("the 8th well-known\u{a0}car", "the 8th well-known car"),
            ("number0 boys and number1 girls?", "number0 boys and number1 girls ?"),
            ("'", "'"),
            ("", ""),
        ] {
            assert_eq!(tidied(text), want);
            assert_eq!(tidied(want), want, "tidying is done once");
        }
    }

    #[test]
    fn masks_and_calculations_can_be_taken_back() {
        let text = unmasked("Ann has number0 cats, number1.5 and number12; number9?", &[3.0, 2.5]);
        assert_eq!(text, "Ann has 3 cats, 2.5.5 and number12; number9?");
        assert_eq!(
            without_calculations("48/2 = <<48/2=24>>24 clips.\n<<24+48=72>>72"),
            "48/2 = 24 clips.\n72"
        );
        assert_eq!(without_calculations("none << here"), "none  here");
    }

    #[test]
    fn numbers_are_masked_in_order() {
        let (text, numbers) =
            masked("He paid $1,080.50 for 25% of .5 kg, 3/4 of 7; 10am, the 2nd time, 12.");
        assert_eq!(
            text,
            "he paid $ number0 for number1 % of number2 kg , number3 / number4 of number5 ; \
             number6 am , the 2nd time , number7 ."
        );
        assert_eq!(numbers, [1080.5, 25.0, 0.5, 3.0, 4.0, 7.0, 10.0, 12.0]);
        assert_eq!(masked("1,2 and 10,000,000").1, [1.0, 2.0, 1e7]);
    }
}
