//! Small helps for text that people read: counts, times, sizes, columns and
//! the name somebody probably meant.

use std::time::Duration;

/// The candidate nearest to `name`, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    let limit = (length / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        // Something of the name must be left: `3` is not a slip for `1`.
        .filter(|(distance, candidate)| {
            *distance <= limit && *distance < length.max(candidate.chars().count())
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ``did you mean `x`?``, or else what there is to choose from.
pub fn suggestion<'a>(
    name: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(near) = nearest(name, candidates.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if candidates.is_empty() {
        return format!("there are no {what}");
    }
    let shown = list(candidates.iter().copied().take(24));
    let more = if candidates.len() > 24 { ", ..." } else { "" };
    format!("{what}: {shown}{more}")
}

/// `` `a`, `b`, `c` ``.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// A template with its holes filled, all in one pass: a filling that spells out
/// a hole stays what it is.
pub fn filled(template: &str, fillings: &[(&str, &str)]) -> String {
    let mut rest = template;
    let mut text = String::new();
    while let Some(at) = rest.find('{') {
        text += &rest[..at];
        rest = &rest[at..];
        let found = fillings.iter().find(|(hole, _)| rest.starts_with(hole));
        let (hole, filling) = found.copied().unwrap_or(("{", "{"));
        text += filling;
        rest = &rest[hole.len()..];
    }
    text + rest
}

/// Edit distance in which two swapped neighbours cost one
/// (optimal string alignment; Damerau, 1964).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// `1 step`, `1,200 steps`.
pub fn plural(n: u64, singular: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {singular}{s}", count(n))
}

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `85 ms`, `4.2 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    match () {
        () if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        () if seconds < 59.95 => format!("{seconds:.1} s"),
        () if whole < 3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        () => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `512 B`, `1.5 KiB`, `2.0 GiB`.
pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// Rows as aligned columns, two spaces apart; columns named in `right` (by
/// number) are aligned to the right. No trailing spaces, one line a row.
pub fn columns(rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |text: &str| text.chars().count();
    let n = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n)
        .map(|i| {
            rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[i] - width(cell));
            line.push_str(if i > 0 { "  " } else { "" });
            line.push_str(&if right.contains(&i) { pad + cell } else { cell.clone() + &pad });
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
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["temperature", "model", "max-tokens"];
        assert_eq!(nearest("temprature", names), Some("temperature"));
        assert_eq!(nearest("modle", names), Some("model"));
        assert_eq!(nearest("max_tokens", names), Some("max-tokens"));
        assert_eq!(nearest("batch", names), None);
        assert_eq!(suggestion("x", "keys", ["a-long", "b-long"]), "keys: `a-long`, `b-long`");
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(plural(1, "step"), "1 step");
        assert_eq!(plural(1200, "step"), "1,200 steps");
        assert_eq!(count(999), "999");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 31), "2.0 GiB");
        let shown = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!(
            [shown(0.085), shown(4.21), shown(200.0), shown(7500.0)],
            ["85 ms", "4.2 s", "3 min 20 s", "2 h 05 min"]
        );
    }

    #[test]
    fn columns_align() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(columns(&[row("name", "n"), row("x", "100")], &[1]), "name    n\nx     100\n");
    }
}
