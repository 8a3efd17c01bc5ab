//! Equations as data sets write them, prefix or infix, and their working as
//! one operation after another.
//!
//! Knows nothing of texts.

use crate::inference::reference::show;
use crate::record::Operation;

/// Deeper than any equation in use; keeps garbage from exhausting the stack.
const DEEPEST: usize = 64;

/// An equation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// A number or `numberK`.
    Operand(String),
    /// An operation on two terms.
    Operation(char, Box<Term>, Box<Term>),
}

/// Reads `- number0 * number1 2.0`.
pub(super) fn prefix(text: &str) -> Result<Term, String> {
    let mut words = text.split_whitespace();
    let term = prefix_term(&mut words, 0).ok_or_else(|| unreadable(text))?;
    words.next().is_none().then_some(term).ok_or_else(|| unreadable(text))
}

fn prefix_term<'a>(words: &mut impl Iterator<Item = &'a str>, depth: usize) -> Option<Term> {
    let word = words.next().filter(|_| depth < DEEPEST)?;
    match operator(word) {
        Some(operator) => {
            let left = prefix_term(words, depth + 1)?;
            let right = prefix_term(words, depth + 1)?;
            Some(Term::Operation(operator, left.into(), right.into()))
        }
        None => operand(word),
    }
}

/// Reads `( 8.0 - ( 2.0 * 3.0 ) )`.
pub(super) fn infix(text: &str) -> Result<Term, String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let term = infix_sum(&words, &mut at, 0).ok_or_else(|| unreadable(text))?;
    (at == words.len()).then_some(term).ok_or_else(|| unreadable(text))
}

fn infix_sum(words: &[&str], at: &mut usize, depth: usize) -> Option<Term> {
    infix_chain(words, at, &['+', '-'], &|at| {
        infix_chain(words, at, &['*', '/'], &|at| infix_operand(words, at, depth))
    })
}

/// Terms joined from left to right by some operators.
fn infix_chain(
    words: &[&str],
    at: &mut usize,
    operators: &[char],
    part: &dyn Fn(&mut usize) -> Option<Term>,
) -> Option<Term> {
    let mut term = part(at)?;
    while let Some(operator) =
        words.get(*at).and_then(|word| operator(word)).filter(|one| operators.contains(one))
    {
        *at += 1;
        term = Term::Operation(operator, term.into(), part(at)?.into());
    }
    Some(term)
}

fn infix_operand(words: &[&str], at: &mut usize, depth: usize) -> Option<Term> {
    let word = words.get(*at).filter(|_| depth < DEEPEST)?;
    *at += 1;
    if *word != "(" {
        return operand(word);
    }
    let term = infix_sum(words, at, depth + 1)?;
    *at += 1;
    (words.get(*at - 1) == Some(&")")).then_some(term)
}

fn operator(word: &str) -> Option<char> {
    matches!(word, "+" | "-" | "*" | "/").then(|| word.chars().next())?
}

fn operand(word: &str) -> Option<Term> {
    let fine = match word.strip_prefix("number") {
        Some(index) => index.parse::<usize>().is_ok(),
        None => word.parse::<f64>().is_ok_and(f64::is_finite),
    };
    fine.then(|| Term::Operand(word.to_owned()))
}

fn unreadable(text: &str) -> String {
    format!("`{text}` is no equation")
}

impl Term {
    /// Makes sure that every `numberK` is one of `count` numbers.
    pub(super) fn check(&self, count: usize) -> Result<(), String> {
        match self {
            Term::Operand(word) => match word.strip_prefix("number").map(str::parse::<usize>) {
                Some(Ok(index)) if index >= count => {
                    Err(format!("the equation uses `{word}`, and there are {count} numbers"))
                }
                _ => Ok(()),
            },
            Term::Operation(_, left, right) => left.check(count).and_then(|()| right.check(count)),
        }
    }

    /// Puts `numberK` where a constant has the value of the K-th number. Of
    /// several numbers with one value, each is taken once, in order.
    pub(super) fn name_numbers(&mut self, numbers: &[f64]) {
        self.name_unused(numbers, &mut vec![false; numbers.len()]);
    }

    fn name_unused(&mut self, numbers: &[f64], used: &mut [bool]) {
        match self {
            Term::Operand(word) => {
                let Ok(value) = word.parse::<f64>() else { return };
                let is_it = |k: &usize| (numbers[*k] - value).abs() < 1e-9;
                let fresh = (0..numbers.len()).find(|k| !used[*k] && is_it(k));
                if let Some(k) = fresh.or_else(|| (0..numbers.len()).find(is_it)) {
                    used[k] = true;
                    *word = format!("number{k}");
                }
            }
            Term::Operation(_, left, right) => {
                left.name_unused(numbers, used);
                right.name_unused(numbers, used);
            }
        }
    }

    /// Puts numbers where `numberK` stands, and writes all as people do: `8`, not `8.0`.
    pub(super) fn spell_out(&mut self, numbers: &[f64]) {
        match self {
            Term::Operand(word) => {
                let index =
                    word.strip_prefix("number").and_then(|index| index.parse::<usize>().ok());
                let value = match index {
                    Some(index) => numbers.get(index).copied(),
                    None => word.parse().ok(),
                };
                if let Some(value) = value {
                    *word = show(value);
                }
            }
            Term::Operation(_, left, right) => {
                left.spell_out(numbers);
                right.spell_out(numbers);
            }
        }
    }

    /// Its operations, each after those it needs. A lone operand has none.
    pub(super) fn steps(&self, numbers: &[f64]) -> Vec<Operation> {
        let mut steps = Vec::new();
        self.add_steps(numbers, &mut steps);
        steps
    }

    /// Adds the operations; what the term is called and what it comes to.
    fn add_steps(&self, numbers: &[f64], steps: &mut Vec<Operation>) -> (String, f64) {
        match self {
            Term::Operand(word) => {
                let value = match word.strip_prefix("number").map(str::parse::<usize>) {
                    Some(Ok(index)) => numbers.get(index).copied(),
                    _ => word.parse().ok(),
                };
                (word.clone(), value.unwrap_or(f64::NAN))
            }
            Term::Operation(operator, left, right) => {
                let (left, a) = left.add_steps(numbers, steps);
                let (right, b) = right.add_steps(numbers, steps);
                let result = match operator {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    _ => a / b,
                };
                steps.push(Operation { left, operator: *operator, right, result });
                (format!("#{}", steps.len() - 1), result)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(term: &Term, numbers: &[f64]) -> Vec<String> {
        let tell = |s: Operation| format!("{} {} {} = {}", s.left, s.operator, s.right, s.result);
        term.steps(numbers).into_iter().map(tell).collect()
    }

    #[test]
    fn prefix_equations_become_steps() {
        let term = prefix("- * number0 number1 / number2 100.0").expect("reads");
        let want = ["number0 * number1 = 6", "number2 / 100.0 = 0.5", "#0 - #1 = 5.5"];
        assert_eq!(told(&term, &[2.0, 3.0, 50.0]), want);
        assert!(term.check(3).is_ok() && term.check(2).is_err());
        assert!(prefix("number0").expect("reads").steps(&[1.0]).is_empty());
    }

    #[test]
    fn infix_equations_know_precedence_and_brackets() {
        let term = infix("( 8.0 - 3.0 ) * 2.0 + 6.0 / 3.0").expect("reads");
        let want = ["8.0 - 3.0 = 5", "#0 * 2.0 = 10", "6.0 / 3.0 = 2", "#1 + #2 = 12"];
        assert_eq!(told(&term, &[]), want);
    }

    #[test]
    fn constants_are_named_by_the_numbers_of_the_text() {
        let mut term = infix("( ( 3.0 + 3.0 ) * ( 3.0 + 7.0 ) )").expect("reads");
        term.name_numbers(&[3.0, 9.0, 3.0]);
        let want = ["number0 + number2 = 6", "number0 + 7.0 = 10", "#0 * #1 = 60"];
        assert_eq!(told(&term, &[3.0, 9.0, 3.0]), want);
    }

    #[test]
    fn what_is_no_equation_is_refused() {
        for text in ["", "- number0", "number0 number1", "+ a b", "numberx", "+ inf 1"] {
            assert!(prefix(text).is_err(), "{text}");
        }
        for text in ["", "( 1.0", "1.0 +", "1.0 2.0", ")", "( )", "1.0 ^ 2.0", "(9-2)"] {
            assert!(infix(text).is_err(), "{text}");
        }
        assert!(prefix(&"+ ".repeat(100_000)).is_err());
        assert!(infix(&"( ".repeat(100_000)).is_err());
    }
}
